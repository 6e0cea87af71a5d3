"""Serving room: the page that shows the entities of a text."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Named entities</title>
<style>
  body { font: 16px/1.7 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
  textarea { width: 100%; height: 9rem; font: inherit; box-sizing: border-box; }
  #result { white-space: pre-wrap; margin-top: 1rem; }
  mark { border-radius: .3rem; padding: .1rem .25rem; }
  mark small { font-weight: bold; margin-left: .3rem; }
</style>
<h1>Named entities</h1>
<textarea id="text" aria-label="Text">Angela Merkel visited the United Nations in New York.</textarea>
<p><button id="find">Find entities</button> <span id="note" role="status"></span></p>
<div id="result" dir="auto"></div>
<script>
const $ = id => document.getElementById(id);
const hue = label => [...label].reduce((sum, c) => sum * 31 + c.codePointAt(0), 7) % 360;
$("find").onclick = async () => {
  const text = $("text").value, began = performance.now();
  $("note").textContent = "...";
  try {
    const response = await fetch("/v1/models/ner:predict", {method: "POST", body: JSON.stringify({instances: [text]})});
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    show(text, answer.predictions[0]);
    $("note").textContent = Math.round(performance.now() - began) + " ms";
  } catch (error) { $("note").textContent = error.message; }
};
function show(text, found) {
  const letters = [...text], parts = [];  // offsets count characters, not UTF-16 units
  let at = 0;
  for (let i = 0; i < found.count; i++) {
    parts.push(letters.slice(at, found.start[i]).join(""));
    const mark = document.createElement("mark"), label = document.createElement("small");
    mark.textContent = letters.slice(found.start[i], found.end[i]).join("");
    mark.style.background = `hsl(${hue(found.label[i])} 80% 85%)`;
    mark.title = found.score[i].toFixed(4);
    label.textContent = found.label[i];
    mark.append(label);
    parts.push(mark);
    at = found.end[i];
  }
  parts.push(letters.slice(at).join(""));
  $("result").replaceChildren(...parts);
}
</script>
</html>
"""
