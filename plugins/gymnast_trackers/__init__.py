"""Trackers of a run: TensorBoard's files, Weights & Biases, MLflow.

`points.py` reads from the run folder what there is to send, `following.py` decides when and survives what fails,
`wandb_sink.py` and `mlflow_sink.py` speak with the libraries. The hooks: `tensorboard.py`, `wandb.py`, `mlflow.py`.
"""
