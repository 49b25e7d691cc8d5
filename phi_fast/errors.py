"""What can go wrong, in four kinds; the command line turns each into one line and an exit code."""

from __future__ import annotations


class PhiFastError(Exception):
    """Base of every error phi_fast raises on purpose. Exit code 1."""

    exit_code = 1


class InputError(PhiFastError):
    """The input or an argument is wrong; the message names file, row and field and says what to do. Exit code 2."""

    exit_code = 2


class RunError(PhiFastError):
    """A run stopped part-way (disk full, vanished file, lost source) and can be resumed. Exit code 1."""


class GateError(PhiFastError):
    """A contamination gate (``--fail-above``) was exceeded. Exit code 3."""

    exit_code = 3
