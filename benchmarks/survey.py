"""Figure 3: a survey against bare reads of the same Variables, in a real Airflow task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Figure, Pairs
from benchmarks.sizes import Sizes
from demo.parts import ROOT, AirflowHome, PartFailed


def measure_survey(folder: Path, sizes: Sizes) -> list[Figure]:
    """Survey many tokens, and fewer whose keys make Airflow mask what it reads."""
    tokens = {"FLOWAPI_JWT": sizes.survey_tokens, "FLOWAPI_TOKEN": sizes.masking_tokens}
    params = json.dumps({"tokens": tokens, "repetitions": sizes.surveys})
    home = AirflowHome(folder)
    home.env["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "benchmarks" / "dags")
    home.set_up()
    with home.log.open("ab") as log:
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "benchmarks.dags.benchmark_survey", params],
            env=home.env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
        )
        log.write(done.stdout)
    measured = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    if measured is None:
        raise PartFailed(f"The task that surveys failed:\n{home.log.read_text()[-3000:]}")
    return [
        Figure(
            3,
            f"survey {one['tokens']:,} healthy tokens",
            f"{one['tokens']:,} Variable.get",
            Pairs(one["baseline"], one["ours"]),
            1.3,
            note=f"in {one['key']}_*; {one['connections']} connections",
        )
        for one in measured
    ]
