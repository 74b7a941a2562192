"""Networks and classifiers from before convolutions learned end to end, as the survey has them."""
