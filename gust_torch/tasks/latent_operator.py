"""Lightning task that trains the latent operator on windows of latents, cached or encoded on the fly."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from gust_torch.models.latent_operator import LatentOperator
from gust_torch.tasks.model_task import ModelTask

if TYPE_CHECKING:
    from gust_torch.latents.dataset import LatentBatch


class LatentOperatorTask(ModelTask):
    """Trains a `LatentOperator` on the windows of a `LatentDataModule`.

    Loss: mean squared error of the latents over the window's later frames, to which the operator is rolled
    out from the first one with gradients through the whole rollout. AdamW with a linear warm-up and a cosine
    to 1 % of `lr` at the end of the run. The autoencoder, which the data module brings, does not train.

    Args:
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        **architecture: The arguments of `LatentOperator` that the data do not give.
    """

    model: LatentOperator

    def __init__(
        self,
        *,
        lr: float = 5e-4,
        weight_decay: float = 1e-4,
        warmup_steps: int = 200,
        **architecture: Any,
    ) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        self.save_hyperparameters()
        self.architecture = architecture

    def configure_model(self) -> None:
        """Build the model round the data module's autoencoder, with statistics of the training windows."""
        if hasattr(self, "model"):
            return
        data = self.data
        if data.n_steps < 2:
            raise ValueError("windows of data.n_steps=1 hold no step to learn; choose 2 or more")
        windows = data.dataset("train")
        # jsonargparse reads the flags of the architecture off this call.
        self.model = LatentOperator(
            data.spec,
            autoencoder=data.autoencoder.architecture(),
            parameter_names=windows.parameter_names,
            **self.architecture,
        )
        self.model.autoencoder.load_state_dict(data.autoencoder.state_dict())
        if self.trainer.training:
            self.model.set_conditioning(windows.parameters, windows.time_steps.flatten())

    def summary(self) -> str:
        """Tokens and where they come from, windows, conditions."""
        latent_len, latent_dim = self.model.latent_shape
        origin = "from the cache" if self.data.encoded else "encoded on the fly"
        conditions = ", ".join(("dt", *self.model.parameter_names))
        return (
            f"{latent_len} tokens of {latent_dim} features {origin}, windows of {self.data.n_steps} frames, "
            f"conditions: {conditions}"
        )

    def next_command(self, checkpoint: str) -> str:
        """Roll it out."""
        return f"python scripts/evaluate.py --checkpoint {checkpoint} --data_path FILE --output_dir FOLDER"

    def on_fit_start(self) -> None:
        """Check the autoencoder, which a checkpoint to continue from may have brought."""
        self._check_autoencoder()
        super().on_fit_start()

    def on_validation_start(self) -> None:
        """Check the autoencoder of a checkpoint given to `validate`."""
        if not self.trainer.training:
            self._check_autoencoder()

    def training_step(self, batch: "LatentBatch", batch_idx: int) -> Tensor:
        """Loss of a batch of windows."""
        latents = self._latents(batch)
        loss = self._loss(latents, batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(latents))
        return loss

    def validation_step(self, batch: "LatentBatch", batch_idx: int) -> None:
        """Loss of a batch of windows, and that of standing still."""
        batch, count = self.true_part(batch, len(batch.states))
        latents = self._latents(batch)
        still = mse_loss(latents[:, :1].expand_as(latents[:, 1:]).float(), latents[:, 1:].float())
        self.means.add({"val/loss": self._loss(latents, batch), "val/persistence": still}, count)

    def _latents(self, batch: "LatentBatch") -> Tensor:
        """Tokens (b, t, latent_len, latent_dim) of the windows, encoded here where the batch holds fields."""
        if batch.encoded:
            return batch.states
        return self.model.encode(batch.states.flatten(0, 1)).unflatten(0, batch.states.shape[:2])

    def _loss(self, latents: Tensor, batch: "LatentBatch") -> Tensor:
        """Mean squared error of a rollout from the first of the latents (b, t, latent_len, latent_dim)."""
        estimate = self.model(latents[:, 0], batch.time_steps, batch.parameters)
        return mse_loss(estimate.float(), latents[:, 1:].float())

    def _check_autoencoder(self) -> None:
        """Refuse, by a ValueError, another autoencoder in the model than that of the data."""
        weights = self.data.autoencoder.state_dict()
        own = self.model.autoencoder.state_dict()
        if not all(torch.equal(value.cpu(), weights[name].to(value.dtype)) for name, value in own.items()):
            raise ValueError(
                "the checkpoint was trained with another autoencoder than that of the data; give the latent "
                "cache or the encoder of that training, or train anew without --ckpt_path"
            )
