"""`python -m pipemill`: the command line."""

import sys

from pipemill.jobs.cli.app import command

if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
