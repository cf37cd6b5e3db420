"""An Optuna script with MLflow as in tutorials: autolog, a nested run per trial, default TPE, no pruning."""

import contextlib

import keras
import mlflow
import optuna

from benchmarks.peers import network

task = network.task()
training, validation = network.images()
mlflow.set_experiment("plain optuna")
mlflow.keras.autolog()


def objective(trial: optuna.Trial) -> float:
    with mlflow.start_run(nested=True, run_name=f"trial {trial.number}"):
        depth = trial.suggest_int("depth", 2, 3)
        widths = [trial.suggest_int(f"width_{i}", *network.BLOCKS[i][:2], step=network.STEP) for i in range(depth)]
        setting = network.Setting(
            dropout=trial.suggest_float("dropout", *network.DROPOUT),
            l2=trial.suggest_float("l2", *network.L2, log=True),
            learning_rate=trial.suggest_float("learning_rate", *task.how.rate, log=True),
            widths=tuple(widths),
        )
        mlflow.log_params(trial.params)
        keras.backend.clear_session()
        model = network.build(setting, task.recipe, network.EPOCHS, len(training[0]))
        seen = model.fit(
            *training,
            batch_size=task.how.batch,
            epochs=network.EPOCHS,
            validation_data=validation,
            verbose=0,
            callbacks=[network.Notes(task, lambda: trial.number)],
        )
        return max(seen.history["val_accuracy"])


with mlflow.start_run(run_name="study"), contextlib.suppress(TimeoutError):
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.seed))
    first = task.how.first
    widths = {f"width_{i}": width for i, width in enumerate(first.widths)}
    numbers = {"dropout": first.dropout, "l2": first.l2, "learning_rate": first.learning_rate}
    study.enqueue_trial({"depth": len(first.widths), **widths, **numbers})
    study.optimize(objective, timeout=task.left)
