"""Encoders that are fitted by a formula instead of by steps."""

from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.encoder import Encoder


class ClosedForm(Encoder):
    """An encoder with a closed-form fit; runs and exports as all others do."""

    def fit(self, trials: Trials) -> None:
        """Set the parameters from training trials; nothing else is looked at.

        Parameters
        ----------
        trials : Trials
            With the labels or the targets that this encoder needs.

        Raises
        ------
        ConfigError
            They lack what it needs.
        """
        raise NotImplementedError
