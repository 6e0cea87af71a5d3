"""A task of one's own. Imports nothing heavy: the task itself is imported when it is needed."""

from app.tasks import register

register("text_length", task="third_task.task:TEXT_LENGTH")
