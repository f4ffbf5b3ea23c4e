#!/usr/bin/env python3
"""Weights from success rates: the best miner gets most of it, the others share the rest equally.

A stage of kind `container/run`: one JSON value comes in on standard input, one object with the declared outputs goes
out on standard output. What stands on standard error is shown when the stage fails. No library is needed.
"""

import json
import sys
from statistics import fmean

given = json.load(sys.stdin)
rates: dict[str, list[float]] = {}
for entry in given["scores"]["entries"]:
    rates.setdefault(entry["hotkey"], []).append(entry["success_rate"])

# Sorted by name first, so that a tie is decided the same way every time.
ranking = sorted(sorted(rates), key=lambda hotkey: fmean(rates[hotkey]), reverse=True)
best, others = ranking[0], ranking[1:]
weights = {hotkey: (1 - given["top"]) / len(others) for hotkey in others}
weights[best] = given["top"] if others else 1.0
json.dump({"weights": weights, "winner": best}, sys.stdout)
