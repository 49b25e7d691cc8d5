"""Let an exported model complete a function, with plain transformers.

python examples/generate.py model
"""

from __future__ import annotations

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = '''def total_price(prices, tax):
    """Add up prices and put a tax in percent on top.

    >>> total_price([100, 50], 10)
    165
    """
'''


def main() -> None:
    """Print the prompt and what follows."""
    parser = argparse.ArgumentParser(description="Let an exported model complete a function.")
    parser.add_argument("model")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    parser.add_argument("--tokens", type=int, default=48)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model)
    ids = tokenizer(given.prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    written = model.generate(ids, max_new_tokens=given.tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    print(tokenizer.decode(written[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
