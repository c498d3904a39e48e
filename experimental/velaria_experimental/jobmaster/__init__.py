"""The job master: jobs of chains of tasks, who runs what, and what happens when somebody dies. No I/O, no clock."""
