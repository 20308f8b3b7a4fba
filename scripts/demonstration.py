"""Starts the demonstration: `scripts/demo --help`.

Processes that read images import the program that started them; this one is quickly imported.
"""

if __name__ == "__main__":
    from demonstration_steps import app

    app()
