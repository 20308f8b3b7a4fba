"""Texts of hostile jobs."""

from __future__ import annotations

import textwrap

HEADER = "# A job of the attack tests.\ndef train(data, weights, config):\n"

RETURN = """
return {"weights": {"w": w}, "metrics": {"loss": 0.5}, "examples": 120}
"""

HONEST = 'return {"weights": weights, "metrics": {"loss": 0.5}, "examples": 120}'


def job(body: str) -> str:
    """A job whose entry function has this body."""
    return HEADER + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def probe(body: str) -> str:
    """A job that tries something: `w[0]` says how often it worked, `w[3]` is 1 at the end.

    The body may raise `OSError`; then `w[1]` is the error's number.
    """
    tried = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    start = "import os, socket, numpy as np\nw = np.zeros(4, np.float32)\ntry:\n"
    end = "\nexcept OSError as error:\n    w[1] = error.errno or -1\nw[3] = 1\n"
    return job(start + tried + end + RETURN.strip())
