"""Tables and figures, made from the predictions table; no network is run here."""
