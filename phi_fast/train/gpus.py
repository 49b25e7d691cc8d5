"""GPUs that `phi-fast plan` knows: memory and peak, each with where it is written."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from phi_fast.errors import InputError
from phi_fast.train.log import PEAKS


class Gpu(NamedTuple):
    """A GPU as its maker describes it.

    Attributes
    ----------
    name
        Its name in `log.PEAKS`.
    memory
        Bytes; a data sheet's GB is taken as 1e9, which is a few percent less than what the chip has.
    source
        Which document says so.
    """

    name: str
    memory: float
    source: str

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s with float32 sums; data sheets that give the sparse figure give twice it."""
        return PEAKS[self.name]


GPUS = {
    "a100": Gpu("A100", 80e9, "NVIDIA A100 data sheet, SXM, 80 GB"),
    "a100-40gb": Gpu("A100", 40e9, "NVIDIA A100 data sheet, SXM, 40 GB"),
    "h100": Gpu("H100", 80e9, "NVIDIA H100 data sheet, SXM"),
    "h100-nvl": Gpu("H100 NVL", 94e9, "NVIDIA H100 data sheet, NVL"),
    "h100-pcie": Gpu("H100 PCIe", 80e9, "NVIDIA H100 PCIe product brief"),
    "h200": Gpu("H200", 141e9, "NVIDIA H200 data sheet, SXM"),
    "b200": Gpu("B200", 180e9, "NVIDIA DGX B200 data sheet, an eighth of the system"),
    "l40s": Gpu("L40S", 48e9, "NVIDIA L40S data sheet"),
    "l4": Gpu("L4", 24e9, "NVIDIA L4 data sheet"),
    "a40": Gpu("A40", 48e9, "NVIDIA A40 data sheet"),
    "a10": Gpu("A10", 24e9, "NVIDIA A10 data sheet"),
    "rtx-4090": Gpu("RTX 4090", 24e9, "NVIDIA Ada GPU architecture white paper"),
    "rtx-3090": Gpu("RTX 3090", 24e9, "NVIDIA Ampere GA102 white paper"),
}


def find_gpu(name: str) -> Gpu:
    """A GPU of `GPUS` by its name there, however it is spelt.

    Raises
    ------
    InputError
        There is none.
    """
    spelt = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    if spelt not in GPUS:
        close = difflib.get_close_matches(spelt, GPUS, 1)
        meant = f'is "{close[0]}" meant? ' if close else ""
        raise InputError(f'no GPU "{name}": {meant}There are {", ".join(GPUS)}')
    return GPUS[spelt]
