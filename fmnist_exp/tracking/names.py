"""Every name that a run, a logged model, a version or an experiment carries in MLflow, with its meaning.

Users rely on these texts: the page docs/interface.md is generated from this module. A name with a part in braces stands
for several; `Metric.CORRUPTION_ACCURACY.format(corruption="blur")` returns one of them.
"""

from enum import StrEnum
from typing import Literal, Self

Kind = Literal["baseline", "train", "tune", "trial", "evaluate"]


class Name(StrEnum):
    """A name as it is written in MLflow, with one sentence that says what it means."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:  # noqa: D102
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Tag(Name):
    """Tags of a run."""

    KIND = "fmnist.kind", "What the run is: baseline, train, tune, trial or evaluate."
    EXPERIMENT = "fmnist.experiment", "Name of the experiment."
    STUDY = "fmnist.study", "Name of the study that the run belongs to."
    TRIAL = "fmnist.trial", "Number of the trial in its study."
    TRIAL_STATE = (
        "fmnist.trial_state",
        "How the trial ended: COMPLETE, PRUNED or FAIL. Before that, PAUSED and RUNNING if it has paused.",
    )
    ERROR = "fmnist.error", "Why the run failed or was interrupted."
    OWNER = "fmnist.owner", "Process that writes the run, with its machine and the time of its last sign of life."
    RESUMPTIONS = "fmnist.resumptions", "Number of times that the run was resumed after an interruption or a pause."
    RESUMED_UNDER = "fmnist.resumed_under", "Conditions of the fit that differed when the run was resumed, if any did."
    RESUMES = "fmnist.resumes", "Id of an interrupted run that this run, or the command that made it, resumed."
    PRECISION = "fmnist.precision", "Precision that was chosen for training.precision=auto or measure."
    PRECISION_REASON = "fmnist.precision_reason", "Why that precision was chosen."
    THREADS = "fmnist.threads", "Number of threads that computed the fit."
    PROCESSOR = "fmnist.processor", "Processor that computed the fit, a digest of its instructions, and the GPU."
    BACKEND = "fmnist.backend", "Backend of Keras, with versions; says if TensorFlow lacks oneDNN or limits it."
    LIBRARIES = "fmnist.libraries", "Digest of the versions of the libraries that computed the fit."
    CODE = "fmnist.code", "Digest of the package's modules."
    DIRTY = "fmnist.dirty", "Whether the package's modules had changes that were not committed to Git."
    WEIGHTS_DIGEST = "fmnist.weights_sha256", "Digest of the weights after the fit, in float32."
    REPRODUCES = "fmnist.reproduces", "Id of the run that this run repeated."
    REPRODUCED = "fmnist.reproduced", "Whether the repeated run gave identical numbers, in one sentence."
    SCORE_TEST = "fmnist.score_test", "Whether the run is one that scores the test set: true or false."
    TEST_SCORED = (
        "fmnist.test_scored",
        "When (UTC), by a run of which kind, by whom and in which run the run's model was scored on the test set.",
    )
    WARM_LAYERS = "fmnist.warm_layers", "How many layers started with the weights of model.warm_start."
    REFIT_OF = "fmnist.refit_of", "Id of the trial's run whose setting this run fitted again on all images."
    FINAL_OF = "fmnist.final_of", "Id of the trial's run whose setting this run trained to the end."
    GAIN = "fmnist.gain", "What a search gained over the experiment's own setting, in one sentence."
    BEST_TRIAL = "fmnist.best_trial", "Number of the best trial of a search."
    BEST_RUN = "fmnist.best_run", "Id of the run of the best trial of a search."
    DAMAGED = (
        "fmnist.damaged_trials",
        "Numbers of better trials of a search that were passed over, because the files of their models are damaged.",
    )
    FRONT = "fmnist.front", "Numbers of the trials on the Pareto front of a search with several objectives."
    WEIGHTS_KEPT = "fmnist.weights_kept", "Numbers of the trials whose weights search.keep did not delete."
    VERSION = "fmnist.version", "Number of the version that the run registered, evaluated or promoted."
    GATE = "fmnist.gate", "Verdict of the gate on that version, in one sentence."
    USER = "mlflow.user", "Name of the user who started the run."
    NAME = "mlflow.runName", "Name of the run, as the MLflow UI shows it."
    NOTE = "mlflow.note.content", "Description of the run in Markdown: what it is, its result and how to use it."
    PARENT = "mlflow.parentRunId", "Id of the run that this run is a child of."
    GIT_COMMIT = "mlflow.source.git.commit", "Git commit of the code that made the run."
    SPOOL_ID = "fmnist.spool_id", "Local id, by which the run is known until the store has given it an id."
    SPOOL_DAMAGED = "fmnist.spool_damaged", "What the store never got because the disk had damaged the local spool."


class ExperimentTag(Name):
    """Tags of an MLflow experiment."""

    KIND = "mlflow.experimentKind", "Tells the MLflow UI to show the pages for training models."
    PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name", "Metric that the MLflow UI shows first."
    GREATER_IS_BETTER = "mlflow.experiment.primaryMetric.greaterIsBetter", "Whether that metric is to be large."


class Param(Name):
    """Params of a run, beside every field of its experiment by dotted name."""

    LIBRARY = "version.{library}", "Version of tensorflow, keras or numpy."
    BEST = "best.{field}", "Value of a searched field in the best trial of a search."
    MODEL = "model", "Address of the evaluated version."
    VERSION = "version", "Number of the evaluated version."
    SEED = "seed", "Random seed; in a run of `evaluate`, of the corruptions."


class Metric(Name):
    """Metrics of a run. Losses are mean cross-entropies in nats, without penalties; accuracies lie between 0 and 1."""

    TRAIN_LOSS = "train_loss", "Loss on the training images, per epoch, without label smoothing and penalties."
    TRAIN_ACCURACY = "train_accuracy", "Accuracy on the training images, per epoch."
    VAL_LOSS = "val_loss", "Loss on the validation images, per epoch, in the precision of training."
    VAL_ACCURACY = (
        "val_accuracy",
        "Validation accuracy of the network of each epoch, in the precision of training and without model.averaging.",
    )
    LEARNING_RATE = "learning_rate", "Learning rate at the end of the epoch."
    EPOCH_SECONDS = "epoch_seconds", "Duration of the epoch in seconds, validation included."
    BEST_EPOCH = "best_epoch", "Number of the epoch whose weights the model has, counted from 1."
    BEST_VAL_ACCURACY = (
        "best_val_accuracy",
        "Validation accuracy of the logged network, in float32 and with model.averaging, which is what a search"
        " optimises; the run of a search has that of its best trial.",
    )
    BEST_VAL_LOSS = "best_val_loss", "Validation loss of the logged network, in float32 and with model.averaging."
    FIT_SECONDS = "fit_seconds", "Duration of the fit in seconds."
    IMAGES_PER_SECOND = "images_per_second", "Training images per second, validation excluded."
    PARAMETERS = "parameters", "Number of weights and biases of the model."
    PRECISION_IMAGES_PER_SECOND = "{precision}_images_per_second", "Speed in a precision, measured to choose one."
    PRECISION_SECONDS = "precision_seconds", "Duration of measuring these speeds, in seconds."
    PREDICTION_SECONDS = "prediction_seconds", "Median seconds for predicting one image on ONNX Runtime, one thread."
    TRIAL = "trial", "Number of the trial, so that the UI can plot other metrics over it."
    BEST_TRIAL = "best_trial", "Number of the best trial of a search."
    TEST_ACCURACY = "test_accuracy", "Accuracy on the test images, measured once."
    TEST_LOSS = "test_loss", "Loss on the test images."
    TEST_ECE = "test_ece", "Expected calibration error on the test images, in 15 bins."
    TEST_ACCURACY_CLASS = "test_accuracy_{class}", "Accuracy on the test images of one class."
    BASELINE_ACCURACY = "{baseline}_{split}_accuracy", "Accuracy of one baseline on a split, on their parent run."
    CORRUPTION_ACCURACY = "{corruption}_accuracy", "Accuracy on corrupted test images; the step is the severity."
    CORRUPTION_ECE = "{corruption}_ece", "Expected calibration error on them; the step is the severity."
    CORRUPTED_ACCURACY = "corrupted_accuracy", "Mean accuracy over all corruptions and severities."
    CORRUPTED_ECE = "corrupted_ece", "Mean expected calibration error over all corruptions and severities."
    TEMPERATURE = "temperature", "Temperature that was fitted on the validation images."
    VAL_ECE = "val_ece", "Expected calibration error on the validation images, without a temperature."
    VAL_ECE_SCALED = "val_ece_scaled", "Expected calibration error on the validation images, with the temperature."
    TEST_ECE_SCALED = "test_ece_scaled", "Expected calibration error on the test images, with the temperature."


class Artifact(Name):
    """Paths of a run's artifacts."""

    EXPERIMENT = "experiment.yaml", "The experiment as it was run; `train` accepts its address and runs it again."
    SUMMARY = "model/summary.txt", "Table of the network's layers."
    DIAGRAM = "model/diagram.png", "Diagram of the network."
    ACCURACY_CURVES = "curves/accuracy.png", "Accuracy per epoch."
    LOSS_CURVES = "curves/loss.png", "Loss per epoch."
    SAMPLES = "data/samples.png", "Training images of every class."
    AUGMENTED = "data/augmented.png", "Training images as augmentation changes them."
    CHECKPOINT = "checkpoint/best.keras", "Keras model of the best epoch, in runs of earlier releases."
    STATE = "checkpoint/state-{turn}.npz", "State from which an interrupted run resumes; deleted when it finishes."
    CONFUSION_MATRIX = "evaluation/confusion_matrix.png", "Confusion matrix."
    REPORT = "evaluation/report.json", "All numbers of the evaluation, per split and class."
    PREDICTIONS = "evaluation/predictions.png", "Images with the true and the predicted class."
    MISTAKES = "evaluation/mistakes.png", "The most confident wrong predictions."
    RELIABILITY = "evaluation/reliability.png", "Accuracy against confidence, with and without a temperature."
    ROBUSTNESS_TABLE = "robustness/table.csv", "Accuracy and calibration per corruption and severity."
    ROBUSTNESS_CURVES = "robustness/curves.png", "Accuracy and confidence over the severity."
    ROBUSTNESS_SAMPLES = "robustness/samples.png", "An image under each corruption and severity."
    MODEL_CARD = "model_card.html", "Model card of the evaluated version."
    MODEL_CARD_MARKDOWN = "model_card.md", "The model card in Markdown."
    VERDICT = "gate/verdict.json", "Verdict of the gate, with the numbers of the comparison."
    GATE_IMAGES = "gate/images.csv", "Images that exactly one of challenger and champion classifies correctly."
    GATE_COMPARISON = "gate/comparison.png", "Figure of the comparison of challenger and champion."
    TRIALS = "study/trials.csv", "Table of all trials of the study."
    PARETO_FRONT = "study/pareto_front.csv", "Trials that no other trial beats in every objective."
    STUDY_FIGURES = "study/figures.html", "Interactive figures of the study on one page."
    STUDY_FIGURE = (
        "study/{figure}.png",
        "One figure of the study: history, importances, learning_curves (if a trial has two epochs or more), slices,"
        " parallel_coordinates, timeline or pareto_front.",
    )


class ModelName(Name):
    """Names of the models that a run logs; `runs:/RUN_ID/NAME` is the address of one."""

    MODEL = "model", "The network that the run ends with, at step 0."
    CHECKPOINT = (
        "checkpoint",
        "The network of the best epoch so far, with training.checkpoint; its step is the epoch. The last one is kept.",
    )


class LoggedModelTag(Name):
    """Tags of a logged model."""

    SHA256 = (
        "fmnist.sha256",
        "Digest of checksums.json, which lists the model's files; verified before they are loaded.",
    )
    SIGNATURE = "fmnist.signature", "Ed25519 signature of that digest together with the model's id, in base64."
    WEIGHTS = "fmnist.weights", "Present if the model's weights were deleted: why."
    SPOOL_ID = "fmnist.spool_id", "Local id, by which the model is known until the store has given it an id."


class VersionTag(Name):
    """Tags of a version of the registered model."""

    RUN_ID = "run_id", "Id of the run that logged the model."
    STUDY = "study", "Name of the study that found the model."
    TRIAL = "trial", "Number of the trial that found the model."
    REFIT_OF = "refit_of", "Id of the trial's run whose setting was fitted again on all images."
    GAIN = "gain", "What the search gained over the experiment's own setting, in one sentence."
    SPOOL_ID = (
        "fmnist.spool_id",
        "Local id of the registration, which tells versions that a repeated request made.",
    )
    VAL_ACCURACY = "val_accuracy", "Validation accuracy: the best_val_accuracy of its run, or of the trial if refitted."
    TEST_ACCURACY = "test_accuracy", "Accuracy on the test images; missing until the version is scored on them."
    TEST_SCORED = "test_scored", "Its last 20 scorings on the test set: time (UTC), kind of the run, user and run."
    TEST_SCORINGS = "test_scorings", "Number of times that the version was scored on the test set."
    DATA_DIGEST = "data_digest", "Digest of the training images and labels."
    GIT_COMMIT = "git_commit", "Git commit of the code that trained the model."
    SHA256 = "sha256", "Digest of checksums.json, which lists the model's files; verified before they are loaded."
    SIGNATURE = "signature", "Ed25519 signature of that digest together with the registered model's name, in base64."
    DESCRIPTION_SHA256 = "description_sha256", "Digest of the generated description; one changed by a person is kept."
    EVALUATED_BY = "evaluated_by", "Id of the run that evaluated the version."
    MODEL_CARD = "model_card", "Address of the model card."
    CORRUPTED_ACCURACY = "corrupted_accuracy", "Mean accuracy over all corruptions and severities."
    TEST_ECE = "test_ece", "Expected calibration error on the test images."
    TEMPERATURE = "temperature", "Temperature that was fitted on the validation images."
    GATE_VERDICT = "gate_verdict", "Verdict of the gate, in one sentence."
    GATE_RUN = "gate_run", "Id of the run that holds the comparison."
    GATE_CHAMPION = (
        "gate_champion",
        "Number of the champion that the version was compared with, or none.",
    )
    CHALLENGES = "challenges", "Challenges of the version as champion:number; floor is the logistic regression."
    GATE_CHALLENGE = "gate_challenge", "Number of the challenge, counted from 1 for each opponent."
    GATE_LEVEL = "gate_level", "Significance level of the paired test; it falls with the number of the challenge."
    GATE_EXPORT_DIFFERENCE = "gate_export_difference", "Largest difference of a probability between Keras and ONNX."
    GATE_AGREEMENT = (
        "gate_agreement",
        "Share of unseen images on which a refit answers as the network judged in its place, or correctly.",
    )
    GATE_SMOKE = "gate_smoke", "Result of one request to MLflow's scoring server."
    GATE_IMAGES = "gate_images", "Number of images in the gate split that neither model was trained or chosen on."
    GATE_CHALLENGER_ACCURACY = "gate_challenger_accuracy", "Accuracy of the challenger on those images."
    GATE_CHAMPION_ACCURACY = (
        "gate_champion_accuracy",
        "Accuracy of the champion (the first: logistic regression) on those.",
    )
    GATE_WON = "gate_won", "Number of those images that only the challenger classifies correctly."
    GATE_LOST = "gate_lost", "Number of those images that only the champion classifies correctly."
    GATE_P_VALUE = "gate_p_value", "P-value of the one-sided exact McNemar test."
    GATE_CHALLENGER_TEST_ACCURACY = "gate_challenger_test_accuracy", "Test accuracy of the challenger, for information."
    GATE_CHAMPION_TEST_ACCURACY = "gate_champion_test_accuracy", "Test accuracy of the champion, for information."
    CHAMPION_SINCE = "champion_since", "Time (UTC) at which the version became champion."
    CHAMPION_AFTER = "champion_after", "Number of the champion before it, or none."
    CHAMPION_WHY = "champion_why", "Reason why it became champion."
    CHAMPION_UNTIL = "champion_until", "Time (UTC) at which another version replaced it as champion."
    CHAMPION_FOLLOWED_BY = "champion_followed_by", "Number of the champion after it."


class ModelTag(Name):
    """Tags of the registered model."""

    CHAMPIONS = "champions", "Numbers of all champions in order, the present one last; at most 100."
    CHALLENGES = "challenges", "Highest number of a challenge of each opponent, as champion:number or floor:number."
