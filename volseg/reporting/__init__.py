"""HTML reports on evaluations, batches and runs.

Drawing a case needs its image and masks, so that is done while they are known (`evaluations`, `batches`) and kept in
`pictures/` (`gallery`); `folder` makes the page again from the folder alone. The page of a run needs no pictures
(`trainings`). `picture` and `surface` draw; `page` puts tables and pictures into one file with `page.html`, `page.css`
and the scripts `page.*.js`.
"""
