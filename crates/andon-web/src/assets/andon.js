// One stream of news per page, changes in place, and keys. Pages read and forms work without it.
(() => {
  "use strict";
  const $ = (what, from = document) => from.querySelector(what);
  const $$ = (what, from = document) => [...from.querySelectorAll(what)];
  const parse = html => new DOMParser().parseFromString(html, "text/html").body;

  // Makes `now` look like `next` by changing as little as possible: focus, scroll, what is open and what is typed stay.
  const kept = node => node.nodeType === 1 && node.hasAttribute("data-keep");
  function morph(now, next) {
    if (kept(now) || now.isEqualNode(next)) return;
    if (now.nodeType !== 1) { now.nodeValue = next.nodeValue; return; }
    for (const { name } of [...now.attributes]) if (name !== "open" && !next.hasAttribute(name)) now.removeAttribute(name);
    for (const { name, value } of next.attributes) if (name !== "open" && now.getAttribute(name) !== value) now.setAttribute(name, value);
    if (now.matches("input, select, textarea")) return;
    children(now, next);
  }
  function children(now, next) {
    const wanted = new Set([...next.children].map(child => child.id).filter(Boolean));
    let at = now.firstChild;
    for (const child of [...next.childNodes]) {
      while (at && at.id && !wanted.has(at.id) && !kept(at)) at = drop(at);
      while (at && kept(at) && at.id !== child.id) at = at.nextSibling;
      const same = child.id ? [...now.children].find(one => one.id === child.id && one.nodeName === child.nodeName)
        : at && !at.id && at.nodeType === child.nodeType && at.nodeName === child.nodeName ? at : null;
      if (!same) now.insertBefore(document.importNode(child, true), at);
      else {
        if (same === at) at = at.nextSibling; else now.insertBefore(same, at);
        morph(same, child);
      }
    }
    while (at) at = kept(at) ? at.nextSibling : drop(at);
  }
  function drop(node) { const after = node.nextSibling; node.remove(); return after; }

  // News. A hidden tab listens to nothing and catches up when it is looked at.
  let source, address = document.body.dataset.live;
  const say = words => { const where = $("#live-state"); if (where && where.textContent !== words) where.textContent = words; };
  function listen() {
    if (!address || source || document.hidden) return;
    source = new EventSource(address);
    source.onopen = () => say("Live.");
    source.onerror = () => {
      say("Not connected; trying again.");
      if (source && source.readyState === EventSource.CLOSED) { source.close(); source = null; setTimeout(listen, 3000); }
    };
    source.addEventListener("page", event => {
      const { title, header, main } = JSON.parse(event.data);
      if (title) document.title = title;
      if (header) { const next = $("#cord", parse(header)); if (next) morph($("#cord"), next); }
      if (main) children($("#main"), parse(main));
    });
    source.addEventListener("log", event => {
      const { html, at, line } = JSON.parse(event.data), log = $("#log");
      address = address.replace(/at=\d+&line=\d+/, `at=${at}&line=${line}`);
      reopen();
      if ($("[data-more=after]")) return;
      const lines = parse(html), first = log.firstElementChild, end = log.scrollHeight - log.scrollTop - log.clientHeight < 40 || !first;
      // Whoever reads further up gets the rest when he scrolls to it.
      if (!end && number(lines.firstElementChild) - number(first) > most) return further("after", lines.firstElementChild.dataset);
      log.append(...lines.childNodes);
      if (end) { prune("after"); log.scrollTop = log.scrollHeight; }
    });
    source.addEventListener("again", () => location.reload());
  }
  function goOn({ dataset: { live } }) { if (/[?&]at=/.test(live || "")) { address = live; hush(); listen(); } }
  function hush() { if (source) { source.close(); source = null; } }
  // A stream that breaks goes on from where it was.
  let later;
  function reopen() { clearTimeout(later); later = setTimeout(() => { if (source && source.readyState !== EventSource.OPEN) { hush(); listen(); } }, 1000); }
  document.addEventListener("visibilitychange", () => document.hidden ? hush() : listen());
  addEventListener("pagehide", hush);
  addEventListener("pageshow", listen);
  listen();

  // Only so much output is kept: what goes comes back when it is asked for.
  const most = 5000, number = chunk => +chunk.dataset.line;
  function prune(grown) {
    const log = $("#log");
    for (;;) {
      const first = log.firstElementChild, last = log.lastElementChild, second = first && first.nextElementSibling, height = log.scrollHeight, back = grown === "before";
      if (!second || number(last) - number(back ? first : second) < most) return;
      further(back ? "after" : "before", (back ? last : second).dataset);
      (back ? last : first).remove();
      if (!back) log.scrollTop -= height - log.scrollHeight;
    }
  }
  function further(which, { at, line }) {
    let more = $(`[data-more=${which}]`);
    if (!more) {
      more = Object.assign(document.createElement("a"), { className: "more", textContent: "Lines " + which });
      more.dataset.more = which;
      $("#log")[which](more);
    }
    more.href = `${location.pathname}?${which === "before" ? "until" : "at"}=${at}&line=${line}`;
  }

  // Long output: the pieces before and after come when they are near.
  const log = $("#log");
  if (log) {
    if (/[?&]at=/.test(address || "") && !location.hash) log.scrollTop = log.scrollHeight;
    const near = new IntersectionObserver(seen => seen.forEach(one => one.isIntersecting && fetchMore(one.target)), { rootMargin: "600px" });
    const after = $("[data-more=after]");
    if (after) near.observe(after);
    log.addEventListener("scroll", () => { const more = $("[data-more=after]"); if (more && log.scrollHeight - log.scrollTop - log.clientHeight < 1200) fetchMore(more); });
    document.addEventListener("click", event => { const more = event.target.closest("[data-more]"); if (more) { event.preventDefault(); fetchMore(more); } });
    async function fetchMore(more) {
      if (more.dataset.busy) return;
      more.dataset.busy = "1";
      near.unobserve(more);
      const answer = await fetch(more.href, { headers: { accept: "text/html" } }).catch(() => null);
      if (!answer || !answer.ok) { delete more.dataset.busy; return; }
      const text = await answer.text(), which = more.dataset.more, piece = parse(text), lines = $("#log", piece), next = $(`[data-more=${which}]`, piece);
      if (which === "before") {
        const height = log.scrollHeight;
        log.prepend(...lines.childNodes);
        log.scrollTop += log.scrollHeight - height;
      } else log.append(...lines.childNodes);
      if (next) { more.href = next.getAttribute("href"); delete more.dataset.busy; } else { more.remove(); if (which === "after") goOn(piece); }
      prune(which);
    }
  }

  // On a narrow screen the bar scrolls: the page that is open is in sight.
  const here = $("nav [aria-current]");
  if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 60;

  // Keys.
  let going = 0;
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape" && event.target.id === "jump") event.target.blur();
      return;
    }
    const jump = $("#jump"), help = $("#help");
    if (event.key === "/" && jump) { event.preventDefault(); jump.focus(); jump.select(); }
    else if (event.key === "?" && help && help.togglePopover) help.togglePopover();
    else if (event.key === "g") { going = event.timeStamp; return; }
    else if (going && event.timeStamp - going < 1500 && /^[a-z]$/.test(event.key)) { const to = $(`nav a[data-key=${event.key}]`); if (to) to.click(); }
    going = 0;
  });
  // A question that opens puts the cursor where an answer is typed.
  document.addEventListener("toggle", event => {
    if (event.newState === "open" && event.target.matches(".pop")) { const field = $("input:not([type=hidden]), select", event.target); if (field) field.focus(); }
  }, true);
})();
