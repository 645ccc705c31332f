"""The programs that make models as scripts for the job files of a cluster; see launch/."""
