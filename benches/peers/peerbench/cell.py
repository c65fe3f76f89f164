"""One measurement: one workload, one contender, one fresh interpreter.

Run by the runner as `python -m peerbench.cell SPEC`, never by hand. Spawned workers
import this module again as their main module, so it must stay light: everything
else is imported inside main().
"""

import json
import sys


def main():
    import signal
    import traceback

    # a shell may start background jobs with SIGINT ignored, and that is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from peerbench import workloads
    from peerbench.report_line import Report, clean

    spec = json.loads(sys.argv[1])
    report = Report(spec["events"])
    workload = workloads.find(spec["workload"])
    try:
        workload.run(workload.contender(spec["contender"]), report, spec)
    except Exception as error:
        report.event("failed", f"{type(error).__name__}: {clean(str(error))}"[:200])
        traceback.print_exc()
        raise SystemExit(1) from None
    report.event("done")


if __name__ == "__main__":
    main()
