"""The rows of a lake for Spark's `format("lakewriter")`. It knows Arrow, and not Spark.

Entry points: `request` parses the options, `slices` divides the work among tasks, and
`rows` reads one slice. The package `pyspark_lakewriter` hands them to Spark.
"""
