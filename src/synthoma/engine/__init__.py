"""One function over many cases: in this process, in local processes or on a Dask cluster; one record per case."""
