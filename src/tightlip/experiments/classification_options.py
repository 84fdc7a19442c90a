"""The options of a certified run, as `tightlip train` has them, their defaults, and what they may be."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from ..choices import chosen
from ..errors import TightlipError
from ..norms import as_norm
from ..options import plain
from .architectures import Sizes, sizes_of
from .limits import OF_ALL, refuse_beyond, refuse_widths
from .margin_losses import LOSSES, TEMPERED
from .method_layers import LAST_LAYERS
from .methods import METHODS, Method, owners

OF_METHODS = tuple(dict.fromkeys(name for method in METHODS.values() for name in method.defaults))
"""The options that belong to some methods, and not to all."""

CHOICES: dict[str, Mapping[str, Any]] = {"loss": LOSSES, "last_layer": LAST_LAYERS}
"""Options of methods that are a name in a table; the others are numbers."""

LEAST = {"k": 1e-30, "temperature": 1e-12, "train_steps": 1}
"""What options of methods are at least; others may be 0."""

MOST = {"dropout": 0.99, **OF_ALL}
"""What they are at most, where it is less than of other numbers."""


@dataclass(frozen=True)
class Training:
    """What is trained, and how."""

    data: str = "mnist5k"
    """Data set: mnist5k (ships with the package), mnist, fashion-mnist, cifar10, or a PATH: a .csv or .parquet table,
    an .npz file, a folder of .npy files, or a folder of images."""
    label: str | None = None
    """Of a table the column of the classes (default: the last)."""
    drop: tuple[str, ...] | None = None
    """Of a table the columns that are left out, such as numbers of customers."""
    standardize: Literal["yes", "no"] | None = None
    """Rows are standardized inside of the network, by the training part (default: yes of tables, no of others)."""
    center: Literal["no", "inputs", "layers"] | None = None
    """Whose mean is taken off inside of the network: that of the channels of images, or of what layers make as well
    (default: of images layers by orthonormal, or with batches below 64 inputs, no by distances, inputs by other
    methods; no of other data)."""
    norm: Literal["2", "inf"] = "2"
    """Norm of the perturbations to be certified against."""
    method: str | None = None
    """How to train: standard, dropout, weight_decay, pgd, gradient_penalty, jacobian_penalty, spectral, parseval,
    orthonormal, row_l1, row_l1_margin or distances (default: orthonormal for the 2-norm, row_l1 for the inf-norm)."""
    network: str = "mlp"
    """Kind of network: mlp, or for images convnet or mixer."""
    hidden: tuple[int, ...] | None = None
    """Widths of the dense hidden layers (default: 512 512 512 for the mlp, 64 64 on tables, 256 256 of distances, 512
    512 for the convnet, 256 for the mixer)."""
    channels: tuple[int, ...] | None = None
    """convnet and mixer only: channels of each stage (default: 64 128)."""
    depth: int | None = None
    """convnet and mixer only: convolutions of a stage after its first (default: 0 for the convnet, 2 for the
    mixer)."""
    activation: str = "maxmin"
    """Activation after each hidden layer: maxmin, groupsort4, fullsort, abs, maxout, relu or tanh."""
    k: float | None = None
    """Lipschitz constant that a constraint holds (default: 1; of row_l1 and row_l1_margin 1000)."""
    loss: str | None = None
    """orthonormal, spectral, parseval and row_l1_margin: what asks for the margin: cross_entropy, hinge,
    hinge_kantorovich or emma (default: cross_entropy)."""
    offset: float | None = None
    """The same: margin that the loss asks for, in units of K (default: 0.8, or with eps what suits it,
    0.73 + 1.56·eps; of row_l1_margin 0.1)."""
    temperature: float | None = None
    """The same, with the loss cross_entropy or emma: its temperature, in units of K (default: 0.25, or with eps 0.2;
    of row_l1_margin 0.001, which is 1 in units of the logits)."""
    last_layer: str | None = None
    """orthonormal: the last layer: orthonormal, rows, each of which has a 2-norm of 1 at most, or prototypes, of which
    the nearest says the class (default: orthonormal)."""
    a: float | None = None
    """row_l1 and distances: the hinge asks for the margin K·a, which certifies the radius a/2 in the inf-norm
    (default: 0.1 and 0.7, or with eps what suits it, 8/3·eps)."""
    dropout: float | None = None
    """dropout: share of hidden units that a step leaves out, and 0.4 times it of inputs (default: 0.5)."""
    weight_decay: float | None = None
    """weight_decay: of AdamW, in units of the learning rate (default: 0.1)."""
    penalty: float | None = None
    """gradient_penalty and jacobian_penalty: weight beside the loss (default: 1 and 0.05)."""
    train_eps: float | None = None
    """pgd: radius of the attack in training, in units of the inputs (default: 0.3)."""
    train_steps: int | None = None
    """pgd: gradient steps of the attack in training (default: 10)."""
    patch: int | None = None
    """convnet and mixer only: height and width of the patches that the first stage begins with (default: 4)."""
    epochs: int | None = 50
    """Passes over the training data."""
    batch_size: int | None = None
    """Examples per step (default: 128; of tables with fewer than 5000 training rows 32)."""
    learning_rate: float | None = None
    """Initial, falling to zero along a cosine (default: 0.001; of constraints 0.002 with Adam, of row_l1 0.0033 and
    of row_l1_margin 0.00033 with AggMo, of distances 0.02, which rises first)."""
    shift: int | None = None
    """Images are moved by up to this many pixels at random in training (default: 1; other data are not moved)."""
    flip: bool = False
    """Images are mirrored left to right at random in training: for photographs and clothes, not for digits or text."""
    average: float = 0.0
    """Decay, per step, of a moving average of the weights, in which epochs are judged and the network is kept; 0 for
    none, else such as 0.99."""
    autocast: bool = False
    """Multiply in bfloat16 in training: faster on GPUs and on CPUs with AMX. Constraints, validation and certificates
    are computed as without."""


@dataclass(frozen=True)
class Recipe(Training):
    """All options that determine the numbers of a run, except for the seed."""

    eps: float | None = None
    """Radius of the headline, in units of the inputs, of tables in standardized ones, such as 0.3 or 36/255. Offset,
    temperature and a follow where it is given in the norm of the method (default: 0.3 for the 2-norm, a/2 for the
    inf-norm)."""
    attack_images: int = 1000
    """Test inputs that the attack tries."""
    attack_steps: int = 50
    """Gradient steps per restart of the attack."""
    attack_restarts: int = 2
    """Starting points of the attack."""

    @property
    def p(self) -> float:
        """The norm as a number."""
        return as_norm(self.norm)

    @property
    def way(self) -> str:
        """The name of the method."""
        return self.method or ("orthonormal" if self.p == 2 else "row_l1")

    @property
    def trained_by(self) -> Method:
        """The method."""
        return chosen("method", self.way, METHODS)

    @property
    def settings(self) -> dict[str, Any]:
        """The options of the method and its loss, with their defaults; those of others are left out."""
        given = {name: getattr(self, name) for name in self.trained_by.defaults}
        usual = {**self.trained_by.defaults, **self._within}
        found = {name: usual[name] if value is None else value for name, value in given.items()}
        unused = {"temperature"} if found.get("loss", TEMPERED[0]) not in TEMPERED else set()
        return {name: value for name, value in found.items() if name not in unused}

    @property
    def _within(self) -> Mapping[str, Any]:
        """What follows from a radius that is given in the norm in which the method holds its constant."""
        method = self.trained_by
        suits = self.eps is not None and method.norm == self.p
        return method.within(self.eps) if suits and method.within is not None and self.eps is not None else {}

    @property
    def constant(self) -> float | None:
        """The Lipschitz constant asked for; None where nothing is constrained."""
        return self.settings.get("k")

    @property
    def rate(self) -> float:
        """The initial learning rate."""
        return self.trained_by.rate if self.learning_rate is None else self.learning_rate

    @property
    def passes(self) -> int:
        """The epochs, where they do not follow from a time."""
        return 50 if self.epochs is None else self.epochs

    @property
    def batch(self) -> int:
        """Examples per step, where the data do not say otherwise."""
        return 128 if self.batch_size is None else self.batch_size

    @property
    def pixels(self) -> int:
        """How far images are moved in training."""
        return 1 if self.shift is None else self.shift

    @property
    def radius(self) -> float:
        """The radius of the headline."""
        usual: float = 0.3 if self.p == 2 else self.settings.get("a", 0.1) / 2
        return usual if self.eps is None else self.eps

    @property
    def sizes(self) -> Sizes:
        """Of the network."""
        hidden = self.trained_by.hidden if self.hidden is None else self.hidden
        return sizes_of(self.network, hidden, self.channels, self.depth, self.patch)

    @property
    def resolved(self) -> dict[str, Any]:
        """The options as JSON has them, with their defaults; None for those that are of other methods."""
        own = {name: self.settings.get(name) for name in OF_METHODS}
        values = asdict(self) | {"method": self.way, "learning_rate": self.rate} | own
        usual = {"eps": self.radius, "shift": self.pixels, "epochs": self.passes, "batch_size": self.batch}
        return values | plain(asdict(self.sizes)) | usual


@dataclass(frozen=True)
class Config(Recipe):
    """Options of `tightlip train`."""

    BEFORE: ClassVar[Mapping[str, Any]] = {"center": "no"}
    """What options were before they had a name, in runs that began then."""

    epochs: int | None = None
    """Passes over the training data (default: 50; of tables 20 to 100, more of smaller ones; or what takes so many
    minutes)."""
    seed: int = 0
    """Of the split, the initialization, the order of the examples and the attack."""
    minutes: float | None = None
    """Choose the epochs so that training takes about so long on this machine, as timed before (default: not timed)."""

    @property
    def resolved(self) -> dict[str, Any]:
        """As of a recipe; the epochs are None while they are still to be chosen."""
        return super().resolved | {"epochs": self.epochs if self.minutes is not None else self.passes}


def check(config: Config) -> None:
    """Refuse impossible options before anything is computed."""
    _check_owners(config)
    _check_choices(config)
    if config.minutes is not None and config.epochs is not None:
        raise TightlipError(f"epochs={config.epochs} and minutes={config.minutes} both say how long: leave one out")
    if config.center == "layers" and config.batch == 1:
        raise TightlipError("one example less its mean is zero: give batch_size=2 or more, or leave out center=layers")
    limits = {
        "epochs": (config.passes, 1),
        "minutes": (1 if config.minutes is None else config.minutes, 1e-6),
        "batch_size": (config.batch, 1),
        "shift": (config.pixels, 0),
        "average": (config.average, 0),
        "seed": (config.seed, 0),
        "attack_images": (config.attack_images, 1),
        "attack_steps": (config.attack_steps, 1),
        "attack_restarts": (config.attack_restarts, 1),
        "eps": (config.radius, 0),
        "depth": (config.sizes.depth or 0, 0),
        "patch": (1 if config.sizes.patch is None else config.sizes.patch, 1),
        "learning_rate": (config.rate, 1e-12),
    }
    limits |= {name: (value, LEAST.get(name, 0)) for name, value in config.settings.items() if name not in CHOICES}
    refuse_beyond(limits, MOST)
    for name, widths in (("hidden", config.sizes.hidden), ("channels", config.sizes.channels or ())):
        refuse_widths(name, widths, config.activation)


def _check_owners(config: Config) -> None:
    """Refuse options of other methods than the one that trains, and networks that it does not make."""
    kept = {"network": "mlp", "activation": "maxmin", "center": ("no", None)}
    if config.trained_by.own is not None and any(getattr(config, name) not in kept[name] for name in kept):
        raise TightlipError(
            f"{config.way} has layers of its own, without activations, which take off means as it suits them: leave "
            "out network, activation and center"
        )
    for name in OF_METHODS:
        if getattr(config, name) is not None and name not in config.trained_by.defaults:
            known = owners(name)
            which = f"method={known[0]}" if len(known) == 1 else f"one of the methods {', '.join(known)}"
            raise TightlipError(f"{name} belongs to {which}, and this is {config.way}: leave it out, or choose another")


def _check_choices(config: Config) -> None:
    """Refuse unknown names, and a temperature for a loss that has none."""
    for option, table in CHOICES.items():
        if option in config.settings:
            chosen(option.replace("_", " "), config.settings[option], table)
    loss = config.settings.get("loss", TEMPERED[0])
    if config.temperature is not None and loss not in TEMPERED:
        raise TightlipError(
            f"temperature belongs to the losses {' and '.join(TEMPERED)}, and this is {loss}: leave it out"
        )
