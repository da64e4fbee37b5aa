"""The loop on a stage small enough to know by heart."""

import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import CPU, Points, Regression, log, schedule, weights

from penumbra import checkpoint
from penumbra.errors import ConfigError, DataError, Stopped, TrainingError
from penumbra.training.loop import fit
from penumbra.training.schedule import step_generator
from penumbra.training.stop import wishes


def test_learning_rate_rises_and_then_falls_to_zero() -> None:
    plan = schedule(steps=100, lr=1.0, warm_up=0.1)
    rates = [plan.lr_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 1e-3


def test_steps_and_seeds_have_generators_of_their_own() -> None:
    drawn = {
        float(torch.rand((), generator=step_generator(seed, step)))
        for seed in range(10)
        for step in range(100)
    }
    assert len(drawn) == 1000


def test_a_stage_continues_bit_for_bit_across_a_change_of_its_parameters(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(Regression(grow=6), Points(), schedule(), folder=whole, device=CPU)
    for stop in range(4):
        late = time.monotonic() - 1  # the time is always up: one step, then it is saved
        with pytest.raises(Stopped, match=rf"saved after step {stop + 1} of 12"):
            fit(Regression(grow=6), Points(), schedule(deadline=late), folder=parts, device=CPU)
    while len(log(parts)) < 11:
        with pytest.raises(Stopped):
            fit(
                Regression(grow=6),
                Points(),
                schedule(deadline=time.monotonic() - 1),
                folder=parts,
                device=CPU,
            )
    fit(Regression(grow=6), Points(), schedule(), folder=parts, device=CPU)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=0)
    assert [line["total"] for line in log(parts)] == [line["total"] for line in log(whole)]


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    fit(Regression(), Points(), schedule(), folder=tmp_path, device=CPU)
    again = Regression()
    fit(again, Points(), schedule(), folder=tmp_path, device=CPU)
    assert again.seen == 0
    assert len(log(tmp_path)) == 12


def test_the_time_limit_has_an_exit_code_that_means_try_again(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="time is up") as caught:
        fit(Regression(), Points(), schedule(deadline=0.0), folder=tmp_path, device=CPU)
    assert caught.value.exit_code == 75


def test_a_batch_in_two_parts_has_the_gradient_of_the_whole(tmp_path: Path) -> None:
    class Plain(Regression):
        def loss(
            self, batch: dict[str, Tensor], step: int, generator: torch.Generator
        ) -> dict[str, Tensor]:
            error = self.module(batch["x"]) - batch["x"].sum(1, keepdim=True)
            return {"total": error.square().mean()}

    fit(Plain(), Points(), schedule(), folder=tmp_path / "one", device=CPU)
    fit(Plain(), Points(), schedule(accumulate=2), folder=tmp_path / "two", device=CPU)
    torch.testing.assert_close(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch of 4 in 3 parts .*train\.accumulate"):
        fit(Regression(), Points(), schedule(accumulate=3), folder=tmp_path, device=CPU)


def test_best_is_the_highest_score_and_not_the_last(tmp_path: Path) -> None:
    scores = {5: 0.2, 10: 0.9, 12: 0.4}
    fit(
        Regression(),
        Points(),
        schedule(),
        folder=tmp_path,
        device=CPU,
        validate=lambda step: {"score": scores[step]},
    )
    assert checkpoint.read(tmp_path / "best.safetensors")[1] == {"step": 10}
    assert [line["val/score"] for line in log(tmp_path) if "val/score" in line] == [0.2, 0.9, 0.4]


def test_late_in_a_training_a_constant_answer_is_called_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(
        Regression(),
        Points(),
        schedule(),
        folder=tmp_path,
        device=CPU,
        validate=lambda step: {"score": 0.0, "constant": float(step != 12)},
    )
    said = " ".join(capsys.readouterr().err.split())
    assert "regression: at step 10 no validation case is told from another" in said
    assert "at step 5" not in said  # a young network may well start so
    assert "at step 12" not in said


def test_a_loss_that_is_not_finite_names_its_cases_and_keeps_its_batch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite at step 5 \(total\), cases patient-0, "):
        fit(Regression(), Points(poison=21), schedule(), folder=tmp_path, device=CPU)
    kept = load_file(tmp_path / "not-finite.safetensors")
    assert kept["x"].isnan().any(1).tolist() == [False, True, False, False]
    assert checkpoint.read(tmp_path / "last.safetensors")[1]["step"] == 4


def test_lack_of_memory_ends_in_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"out of memory at step 0 with 4 .*accumulate"):
        fit(Regression(explode=True), Points(), schedule(), folder=tmp_path, device=CPU)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_read_names_its_case(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match=r"^case patient-2: OSError: Input/output error$"):
        fit(
            Regression(),
            Points(broken=22),
            schedule(workers=workers),
            folder=tmp_path,
            device=CPU,
        )


def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        fit(Regression(), Points(), schedule(workers=workers), folder=folder, device=CPU)
    torch.testing.assert_close(weights(tmp_path / "0"), weights(tmp_path / "2"), rtol=0, atol=0)


def test_a_log_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    fit(Regression(), Points(), schedule(steps=4), folder=tmp_path, device=CPU)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "regression", "step": 5, "to')
    fit(Regression(), Points(), schedule(steps=4), folder=tmp_path, device=CPU)
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4]


def test_a_second_interrupt_does_not_wait_for_the_step() -> None:
    with wishes(None) as heard:
        signal.raise_signal(signal.SIGINT)
        assert heard.code() == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
