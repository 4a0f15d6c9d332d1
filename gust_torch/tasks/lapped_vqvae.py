"""Lightning task that trains the lapped VQ-VAE: codes first, then the decoder."""

from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from gust_torch.models.lapped_vqvae import LappedVQVAE2d
from gust_torch.tasks.model_task import num_training_steps, warmup_share
from gust_torch.tasks.vqvae import VQVAETask, random_shifts


class LappedVQVAETask(VQVAETask):
    """Trains a `LappedVQVAE2d` on the fields of the trainer's data module.

    While the codes learn, each batch is seen in several views at once, which cost little before there is a
    decoder. AdamW; each phase has a cosine of its own down to 1 %.

    Args:
        lr: Peak learning rate of the decoder.
        code_lr: Of the codes.
        context_lr: Of the networks that shift and scale them.
        weight_decay: AdamW's decay of the decoder's weights.
        betas: AdamW's decay rates of the two moments.
        warmup_steps: Steps of the decoder's linear warm-up.
        code_views: Copies of each frame, differently augmented, while the codes learn.
        augment_shifts: Shift each training frame by a random number of cells along periodic axes.
        augment_reflections: Mirror each training frame along its periodic axes, at random; a vorticity
            changes its sign. On a square periodic grid also swap the axes.
        **architecture: The arguments of `LappedVQVAE2d`.
    """

    model: LappedVQVAE2d

    def __init__(
        self,
        *,
        lr: float = 2e-3,
        code_lr: float = 2e-2,
        context_lr: float = 3e-3,
        weight_decay: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 30,
        code_views: int = 4,
        augment_shifts: bool = True,
        augment_reflections: bool = False,
        **architecture: Any,
    ) -> None:
        super().__init__(
            lr=lr,
            weight_decay=weight_decay,
            betas=betas,
            warmup_steps=warmup_steps,
            augment_shifts=augment_shifts,
        )
        self.save_hyperparameters()
        self.architecture = architecture
        self.code_lr, self.context_lr, self.code_views = code_lr, context_lr, code_views
        self.augment_reflections = augment_reflections

    def build(self) -> LappedVQVAE2d:
        """Return a new model for the data module's fields."""
        return LappedVQVAE2d(self.data.spec, **self.architecture)

    def configure_optimizers(self) -> Any:
        """AdamW with a group and a schedule for codes, their networks, and the decoder."""
        model, total = self.model, num_training_steps(self.trainer)
        model.shorten_phases(total)
        codes = [p for name, p in model.quantizer.named_parameters() if name.endswith("codes")]
        networks = [p for name, p in model.quantizer.named_parameters() if not name.endswith("codes")]
        groups = [
            {"params": codes, "lr": self.code_lr, "weight_decay": 0.0},
            {"params": networks, "lr": self.context_lr, "weight_decay": 0.0},
            {"params": list(model.decoder.parameters()), "weight_decay": self.weight_decay},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)
        first = partial(_phase, start=model.initial_steps, stop=model.code_steps, warmup=0)
        last = partial(_phase, start=model.code_steps, stop=total, warmup=self.warmup_steps)
        # Lambdas, since what is stored of other callables would be in the checkpoint.
        shares = [lambda step: first(step), lambda step: first(step), lambda step: last(step)]
        schedule = LambdaLR(optimizer, shares)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def augment(self, batch: torch.Tensor) -> torch.Tensor:
        """Shift and mirror the frames of a batch (b, c, h, w); several views of each while codes learn."""
        generator, spec = self.draws(), self.model.spec
        views = self.code_views if self.model.step < self.model.code_steps else 1
        batch = batch.repeat(views, 1, 1, 1)
        if self.augment_shifts:
            batch = random_shifts(batch, spec.boundary, generator)
        if self.augment_reflections:
            batch = random_reflections(batch, spec.names, spec.boundary, generator)
        return batch


def random_reflections(
    x: torch.Tensor, names: tuple[str, ...], boundary: tuple[str, str], generator: torch.Generator
) -> torch.Tensor:
    """Mirror each sample (b, c, h, w) along its periodic axes with probability 1/2, as flows can be mirrored.

    A vorticity, and the velocity along the axis, change their signs. Where all fields are vorticities on a
    square periodic grid, the axes are swapped with probability 1/2 too.
    """

    def maybe(mirrored: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
        return torch.where(drawn.to(x.device), mirrored, x)

    for axis, (kind, component) in enumerate(zip(boundary, ("velocity_x", "velocity_y"), strict=True)):
        if kind == "periodic":
            odd = [name in ("vorticity", "omega", component) for name in names]
            signs = torch.tensor([-1.0 if is_odd else 1.0 for is_odd in odd], device=x.device)
            x = maybe(x.flip(2 + axis) * signs[:, None, None])
    is_square = x.shape[2] == x.shape[3] and boundary == ("periodic", "periodic")
    if is_square and set(names) <= {"vorticity", "omega"}:
        x = maybe(-x.transpose(2, 3))
    return x


def _phase(step: int, *, start: int, stop: int, warmup: int) -> float:
    """Share of the peak learning rate in a phase from one step to another; 0 outside."""
    if not start <= step < stop:
        return 0.0
    return warmup_share(step - start, warmup=warmup, total=stop - start)
