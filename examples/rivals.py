"""The methods that others are compared with, on the digits network: fixed point, min-max, INQ, LQ-Net, ABC-Net.

    python -m examples.rivals [FOLDER]

Each is converted from the float network and then trained for a few epochs in its own quantised form; the table has what
both are worth in integers, and what the trained file costs on the engine that its scheme needs. Run it from the
repository's root; it takes about two minutes. scikit-learn carries the digits.
"""

from gatewise.quant.methods import quantize
from gatewise.quant.progress import TerminalProgress
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet
from rich.console import Console
from rich.table import Table

from examples.digits.train import digit_images, split
from examples.output import output_folder

RIVALS = {
    "fixed8": {},
    "minmax": {"weight_bits": "2", "activation_bits": "2", "per_channel_weights": "true"},
    "inq": {"weight_bits": "3", "activation_bits": "8"},
    "lqnet": {"weight_bits": "2", "activation_bits": "2"},
    "abcnet": {"weight_bits": "3", "activation_bits": "3"},
}
"""Each method with its options."""
EPOCHS = 8

folder = output_folder()
train_images, train_labels, test_images, test_labels = split(*digit_images())
learnt, test = ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)
network = "examples.digits.network:digits_cnn", "examples/digits/weights.safetensors", learnt
table = Table("method", "converted %", "trained %", "array", "file bytes", "cycles an image")
for method, options in RIVALS.items():
    converted = quantize(method, *network, options=options).network.run(test)
    with TerminalProgress() as progress:
        found = quantize(
            method,
            *network,
            train=learnt,
            epochs=EPOCHS,
            options=options | {"learning_rate": "0.02"},
            progress=progress,
        )
    size = save_network(found.network, folder / f"digits-{method}.gw")
    trained = found.network.run(test)
    table.add_row(
        method,
        f"{100 * (converted.top(1) or 0):.1f}",
        f"{100 * (trained.top(1) or 0):.1f}",
        trained.engine.array,
        f"{size:,}",
        f"{trained.cycles_per_image:,.0f}",
    )
Console().print(table)
