"""Run the command line: python -m lakewriter."""

from lakewriter.cli import main

if __name__ == "__main__":
    main()
