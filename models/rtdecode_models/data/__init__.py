"""What encoders are trained and tested on: recordings, BIDS data sets, published arrays; and how it is split."""
