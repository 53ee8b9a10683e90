"""Prediction: `predictor` segments one case, `batch` a folder; `postprocess` and `cases_csv` support them."""
