"""What a system has to be built for, from the data that it is trained on."""

from rtdecode_models.data.trials import Dataset
from rtdecode_models.systems.shape import Shape


def shape_of(dataset: Dataset) -> Shape:
    """The shape of a data set's training windows, of their labels and of their targets."""
    train = dataset.train
    channels = dataset.contract.channels
    return Shape(
        n_times=train.x.shape[1],
        n_channels=train.x.shape[2],
        sfreq=train.sfreq,
        n_subjects=len(train.subjects),
        channels=dataset.channels or tuple(channel.name for channel in channels),
        classes={name: len(classes) for name, classes in train.classes.items()},
        targets={name: rows.shape[1:] for name, rows in train.gallery.embeddings.items()} if train.gallery else {},
        positions=dataset.positions,
    )
