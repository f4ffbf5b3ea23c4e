"""Entry point of `python -m robo_eval_env`."""

import sys

from robo_eval_env.cli import main

sys.exit(main())
