//! Pages, live updates, charts and assets. Writes state only through the commands of andon-line.
