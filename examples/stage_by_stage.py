"""The stages one by one: read, pre-train, train, evaluate, load, predict another case."""

import tempfile
from pathlib import Path

import penumbra as pn

folder = Path(tempfile.mkdtemp())
pn.write_phantom(folder / "films", modality="xray", cases=12, seed=0)

cohort = pn.read_cohort(folder / "films", modality="xray")
print(f"{len(cohort.cases)} films, findings: {', '.join(cohort.task.findings)}")

config = pn.resolve("phantom-xray", size="tiny", overrides={"evaluate.attack_cases": 0})
encoder = pn.pretrain_encoder(config, folder / "films", folder / "run")
pn.train_model(config, folder / "films", folder / "run", encoder=encoder)
print("scores", pn.evaluate_model(folder / "run"))

model = pn.load_model(folder / "run")
case: pn.Case = cohort.part("test").cases[0]
case.plot().savefig(folder / "case.png")  # in a notebook, case.plot() shows itself
for finding, said in pn.predict(model, case, draws=4).findings.items():
    print(f"{finding:20} {said['probability']:.2f} (epistemic {said['epistemic']:.1e})")
