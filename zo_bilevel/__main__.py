"""`python -m zo_bilevel` is the command line."""

from zo_bilevel.cli.main import main

if __name__ == "__main__":
    main(prog_name="zo-bilevel")
