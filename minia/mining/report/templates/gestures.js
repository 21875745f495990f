"use strict";
// How a picture is moved and made larger: dragged, pinched, scrolled, by keys.
(function (m) {
  // hooks: zoom(factor, x, y) about a place in the element, pan(dx, dy), reset(); where they are given also
  // hover(event) with no pointer down and click(event) with a pointer that did not move. Gives zoom about the middle.
  m.gestures = function (element, hooks) {
    var pointers = new Map(), moved = 0;
    function zoom(factor, clientX, clientY) {
      var box = element.getBoundingClientRect();
      hooks.zoom(factor, clientX - box.left, clientY - box.top);
    }
    function zoomMiddle(factor) { hooks.zoom(factor, element.clientWidth / 2, element.clientHeight / 2); }
    element.addEventListener("wheel", function (event) {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    }, { passive: false });
    element.addEventListener("pointerdown", function (event) {
      if (event.target.closest("button")) { return; }
      pointers.set(event.pointerId, event);
      moved = 0;
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", function (event) {
      var last = pointers.get(event.pointerId);
      if (!last) { if (hooks.hover) { hooks.hover(event); } return; }
      if (pointers.size === 2) {
        var other = Array.from(pointers.values()).find(function (each) { return each.pointerId !== event.pointerId; });
        var before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY);
        var after = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
        zoom(after / Math.max(before, 1), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
      } else { hooks.pan(event.clientX - last.clientX, event.clientY - last.clientY); }
      moved += Math.abs(event.clientX - last.clientX) + Math.abs(event.clientY - last.clientY);
      pointers.set(event.pointerId, event);
    });
    ["pointerup", "pointercancel"].forEach(function (kind) {
      element.addEventListener(kind, function (event) {
        pointers.delete(event.pointerId);
        if (kind === "pointerup" && moved < 5 && hooks.click) { hooks.click(event); }
      });
    });
    element.addEventListener("keydown", function (event) {
      var steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (steps[event.key]) { hooks.pan(steps[event.key][0], steps[event.key][1]); event.preventDefault(); }
      if (event.key === "+" || event.key === "=") { zoomMiddle(1.3); }
      if (event.key === "-") { zoomMiddle(1 / 1.3); }
      if (event.key === "0") { hooks.reset(); }
    });
    return zoomMiddle;
  };
}(minia));
