"""Cases in, masks out: `predictor` segments one case, `batch` a folder; `postprocess` and `cases_csv` serve them."""
