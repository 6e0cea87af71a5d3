"""A task of one's own: how many words a text has. Imports nothing heavy; the task is imported when it is needed."""

from app.tasks import register

register("text_length", task="third_task.task:TEXT_LENGTH")
