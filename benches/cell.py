"""``python -m benches.cell SCENARIO CONTENDER SCALE``: one measurement, as JSON, in a process that
has done nothing before and does nothing after."""

import json
import sys

from benches.contenders import CONTENDERS
from benches.scenarios import SCENARIOS


def main():
    scenario, contender, scale = sys.argv[1:]
    figures = SCENARIOS[scenario].measure(CONTENDERS[contender], float(scale))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
