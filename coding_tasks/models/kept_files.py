"""The files that runs left for the people of a thread."""

from django.db import models
from django.utils import timezone


class RunFile(models.Model):
    """A file that a run left, kept for two weeks so that it can be posted."""

    run = models.ForeignKey(
        "coding_tasks.TaskRun", on_delete=models.CASCADE, related_name="left_files"
    )
    number = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=100)
    content = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="run_file_unique_number")
        ]

    def __str__(self) -> str:
        return self.name
