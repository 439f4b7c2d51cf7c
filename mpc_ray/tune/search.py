"""The search for the best settings on the training problems, with Ray Tune."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.planner.tuning import Knob, Sweep, Target, loss
from mpc_ray.tune.runs import Progress, measured

_SEARCH = "search"  # Ray Tune's folder
_listener: Progress | None = None  # of the search under way: Ray saves its callbacks, which must not hold one


def search(
    sweep: Sweep, target: Target, place: Path, defaults: dict[str, Any], base: list[float], progress: Progress
) -> tuple[tuple[int, int, int], dict[str, float | int], float]:
    """(trials, stopped early, failed), the best of the trials that saw all problems, and its loss."""
    from ray import tune as ray_tune

    def trial(config: dict[str, Any]) -> None:
        seen: list[float] = []
        for spec in target.train:
            seen.append(measured(target, config, spec, sweep.seed))
            if len(seen) in sweep.rungs:
                ray_tune.report({"loss": loss(seen, base[: len(seen)]), "seen": len(seen)})

    trainable = ray_tune.with_resources(trial, {"cpu": 1})
    path = place / _SEARCH
    if ray_tune.Tuner.can_restore(str(path)):
        tuner = ray_tune.Tuner.restore(str(path), trainable=trainable, resume_unfinished=True)
    else:
        shutil.rmtree(path, ignore_errors=True)  # killed before Ray had saved anything
        tuner = ray_tune.Tuner(
            trainable,
            param_space={knob.name: _domain(knob) for knob in target.knobs}
            if sweep.search == "random"
            else None,
            tune_config=ray_tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=sweep.trials,
                max_concurrent_trials=sweep.at_once,
                search_alg=_searcher(sweep, target, defaults),
                scheduler=_scheduler(sweep.rungs),
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name=_SEARCH, storage_path=str(place), verbose=0, callbacks=[_watch(sweep.trials)]
            ),
        )
    with _listening(progress):
        results = tuner.fit()
    done = [r for r in results if r.error is None and r.metrics]
    whole = [r for r in done if r.metrics and r.metrics.get("seen") == sweep.rungs[-1]]
    if not whole:
        said = next(
            (str(r.error).splitlines()[-1][:200] for r in results if r.error is not None), "none ended"
        )
        raise MpcError(
            f"no trial of {target.name} saw all problems: {said}", remedy=f"remove {place} and run again"
        )
    best = min(whole, key=lambda r: float(r.metrics["loss"]))  # type: ignore[index]
    settings = {knob.name: _plain(knob, best.config[knob.name]) for knob in target.knobs}  # type: ignore[index]
    counts = (len(results), len(done) - len(whole), results.num_errors)
    return counts, settings, float(best.metrics["loss"])  # type: ignore[index]


def _domain(knob: Knob) -> Any:
    """The range as Ray Tune has it: whole numbers end before their upper end there."""
    from ray import tune as ray_tune

    if knob.whole:
        draw = ray_tune.lograndint if knob.log else ray_tune.randint
        return draw(int(knob.low), int(knob.high) + 1)
    return (ray_tune.loguniform if knob.log else ray_tune.uniform)(knob.low, knob.high)


def _searcher(sweep: Sweep, target: Target, defaults: dict[str, Any]) -> Any:
    """Optuna's tree of Parzen estimators, or random draws; the defaults are the first point of both."""
    first = [{knob.name: min(max(defaults[knob.name], knob.low), knob.high) for knob in target.knobs}]
    if sweep.search == "random":
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator(points_to_evaluate=first, random_state=sweep.seed)
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "search tpe needs the package optuna", remedy="pip install 'mpc-ray[planner]', or search: random"
        ) from error
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {
        knob.name: optuna.distributions.IntDistribution(int(knob.low), int(knob.high), log=knob.log)
        if knob.whole
        else optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
        for knob in target.knobs
    }
    return OptunaSearch(space=space, metric="loss", mode="min", points_to_evaluate=first, seed=sweep.seed)


def _scheduler(rungs: Sequence[int]) -> Any:
    """ASHA (L. Li et al., MLSys 2020) on the number of problems seen; with a single rung there is nothing to stop."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if len(rungs) == 1:
        return FIFOScheduler()
    factor = (rungs[-1] / rungs[0]) ** (1 / (len(rungs) - 1))
    return ASHAScheduler(
        time_attr="seen", max_t=rungs[-1], grace_period=rungs[0], reduction_factor=max(factor, 1.5)
    )


def _watch(total: int) -> Any:
    """Ray's callback that says what has ended; made here, since its base class comes with Ray."""
    from ray.tune import Callback

    class Watch(Callback):
        best = float("inf")

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            self.best = min(self.best, float(result.get("loss", self.best)))
            ended = sum(each.status in ("TERMINATED", "ERROR") for each in trials)
            if _listener is not None:
                remark = f"loss {result['loss']:+.4f} after {result['seen']} problems, best {self.best:+.4f}"
                _listener("search", ended, total, remark)

    return Watch()


@contextlib.contextmanager
def _listening(progress: Progress) -> Iterator[None]:
    global _listener  # noqa: PLW0603
    _listener = progress
    try:
        yield
    finally:
        _listener = None


def _plain(knob: Knob, value: Any) -> float | int:
    """Four digits are enough for a setting, and can be read."""
    return int(value) if knob.whole else float(f"{float(value):.4g}")
