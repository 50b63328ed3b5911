"""What Ansible does, one JSON object a line, for Andon. Decides nothing; what a task hides stays hidden."""

from __future__ import annotations

import json

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: andon
type: stdout
short_description: one JSON object a line
description: Tells plays, tasks, results with their differences, and the sums of each host.
"""

FORM = 1
LONGEST = 65536
ITEMS = 200


def cut(value):
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return text[:LONGEST]


def side(value):
    """A text, or a table of texts where the module compares attributes."""
    if isinstance(value, dict):
        return {cut(key): cut(one) for key, one in list(value.items())[:ITEMS]}
    return None if value is None else cut(value)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "andon"

    def say(self, kind, **fields):
        line = json.dumps({"andon": FORM, "kind": kind, **fields}, default=str, ensure_ascii=False)
        self._display.display(line, screen_only=True)

    def v2_playbook_on_play_start(self, play):
        self.say("play", name=cut(play.get_name()), check=bool(play.check_mode))

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.say("task", name=cut(task.get_name()), module=cut(task.action))

    v2_playbook_on_cleanup_task_start = v2_playbook_on_task_start

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_no_hosts_matched(self):
        self.say("nobody")

    def v2_playbook_on_no_hosts_remaining(self):
        self.say("nobody_left")

    def v2_runner_on_ok(self, result):
        self.told(result, "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.told(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result):
        self.told(result, "skipped")

    def v2_runner_on_unreachable(self, result):
        self.told(result, "unreachable")

    def told(self, result, status):
        task, said = result._task, result._result
        hidden = bool(task.no_log) or "censored" in said or bool(said.get("_ansible_no_log"))
        conditions = " ".join(str(one) for one in (getattr(task, "when", None) or []))
        parts = said.get("results") if isinstance(said.get("results"), list) else None
        parts = [said] if hidden or not parts else [one for one in parts if isinstance(one, dict)]
        self.say(
            "result",
            host=cut(result._host.get_name()),
            task=cut(task.get_name()),
            module=cut(task.action),
            status=status,
            changed=bool(said.get("changed")),
            hidden=hidden,
            really=task.check_mode is False,
            asks_for_check="ansible_check_mode" in conditions,
            message="" if hidden else cut(said.get("msg") or said.get("module_stderr") or ""),
            parts=[self.part(one, hidden) for one in parts[:ITEMS]],
            more=max(0, len(parts) - ITEMS),
        )

    def part(self, said, hidden):
        hidden = hidden or "censored" in said or bool(said.get("_ansible_no_log"))
        reason = said.get("skip_reason") or said.get("skipped_reason") or ""
        diffs = [] if hidden else said.get("diff") or []
        diffs = diffs if isinstance(diffs, list) else [diffs]
        return {
            "changed": bool(said.get("changed")),
            "skipped": bool(said.get("skipped")),
            "failed": bool(said.get("failed")),
            "reason": cut(reason),
            "hidden": hidden,
            "message": "" if hidden else cut(said.get("msg") or ""),
            "diffs": [self.difference(one, said) for one in diffs[:ITEMS] if isinstance(one, dict)],
        }

    def difference(self, diff, said):
        # What comes after is often named by a temporary file: another name in every look.
        item = f"item {cut(said['item'])[:200]}" if "item" in said else ""
        path = diff.get("before_header") or said.get("dest") or said.get("path") or item
        for value in (diff.get("after"), diff.get("before")):
            if isinstance(value, dict) and value.get("path"):
                path = value["path"]
        return {
            "path": cut(path),
            "before": side(diff.get("before")),
            "after": side(diff.get("after")),
            "prepared": cut(diff.get("prepared") or ""),
        }

    def v2_playbook_on_stats(self, stats):
        self.say("stats", hosts={cut(host): stats.summarize(host) for host in stats.processed})
