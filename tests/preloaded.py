"""Imported once by the process that those of the tests are forked from: they begin in a tenth of a second."""

import importlib

for _name in (
    *("align.cli.launch.execute", "align.cli.parse.job", "align.cli.parse.command", "align.cli.main", "wandb"),
    *(
        "align.data.preferences",
        "align.model.export",
        "methods.sft",
        "methods.dpo.dpo",
        "methods.ppo.ppo",
        "methods.rrhf",
    ),
    *("methods.rft.rft", "methods.slic", "reward.training.modelling", "reward.training.ranker", "reward.functions"),
    *("reward.remote.http", "transformers.models.llama.modeling_llama", "peft", "datasets", "matplotlib.pyplot"),
    *("scipy.stats", "huggingface_hub", "omegaconf", "torch.optim.lr_scheduler", "jinja2", "sklearn", "pytest"),
):
    importlib.import_module(_name)
