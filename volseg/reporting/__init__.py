"""One HTML page that a person wants to look at, of an evaluation, a batch or a training.

Drawing a case needs its image and masks, so that is done while they are known (`evaluations`, `batches`) and kept in
`pictures/` (`gallery`); `folder` makes the page again from the folder alone. A run's page needs no pictures
(`trainings`). `picture` draws, `page` puts tables and pictures into `page.html`, `page.css` and `page.js`.
"""
