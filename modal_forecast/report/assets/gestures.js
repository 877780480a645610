// Pointing, zooming and moving. A mouse zooms by a drag and moves by one with Shift, by a sideways wheel, or by two
// fingers on a trackpad. On a screen one finger moves and two zoom. A finger that goes up or down scrolls the page.

const MINIMUM_DRAG = 6;
const ZOOM_PER_PIXEL = 0.005;
// By pointer: where it was pressed and where it is, on the screen, and the day that it holds on to.
const pressed = new Map();
// The pointer that marks a range to zoom to.
let marking = null;
// Of a day, that the wheel has turned so far.
let turned = 0;

container.addEventListener("pointerdown", (event) => {
  if (event.pointerType === "mouse" && event.button !== 0) return;
  container.setPointerCapture(event.pointerId);
  pressed.set(event.pointerId, { from: event.clientX, x: event.clientX });
  marking = event.pointerType === "mouse" && !event.shiftKey ? event.pointerId : null;
  grasp();
  pointAt(chart.dayAt(event.clientX));
});

container.addEventListener("pointermove", (event) => {
  const pointer = pressed.get(event.pointerId);
  if (pointer) pointer.x = event.clientX;
  if (pointer && marking === null) follow();
  const day = chart.dayAt(event.clientX);
  if (pointer && marking !== null) chart.select(chart.dayAt(pointer.from), day);
  // The view moves by whole days, and what it holds on to may be half a day away.
  pointAt(pointer && Math.abs(pointer.day - day) <= 1 ? Math.round(pointer.day) : day);
});

container.addEventListener("pointerup", (event) => {
  const pointer = pressed.get(event.pointerId);
  if (pointer && marking !== null && Math.abs(event.clientX - pointer.from) >= MINIMUM_DRAG) {
    const days = [chart.dayAt(pointer.from), chart.dayAt(event.clientX)];
    showRange(Math.min(...days), Math.max(...days));
  }
  release(event);
});

container.addEventListener("pointercancel", release);
container.addEventListener("dblclick", reset);
container.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") pointAt(null);
});

container.addEventListener(
  "wheel",
  (event) => {
    const count = chart.view.last - chart.view.first + 1;
    // With Ctrl: a browser says so of a pinch on a trackpad, too.
    if (event.ctrlKey) {
      event.preventDefault();
      showHolding(chart.exactDayAt(event.clientX), event.clientX, count * Math.exp(event.deltaY * ZOOM_PER_PIXEL));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      turned += event.deltaX / chart.dayWidth;
      const days = Math.trunc(turned);
      turned -= days;
      showHolding(chart.exactDayAt(event.clientX) + days, event.clientX, count);
    }
  },
  { passive: false },
);

// Every pointer holds on to the day that is under it now.
function grasp() {
  const { first, last } = chart.view;
  for (const pointer of pressed.values()) pointer.day = Math.min(last, Math.max(first, chart.exactDayAt(pointer.x)));
}

// Shows the days that bring those held back under their pointers.
function follow() {
  const [one, other] = pressed.values();
  let count = chart.view.last - chart.view.first + 1;
  if (other) {
    const share = Math.abs(chart.shareAt(other.x) - chart.shareAt(one.x));
    // Fingers side by side are as far apart as two can be told apart.
    count = Math.abs(other.day - one.day) / Math.max(share, 0.02);
  }
  showHolding(one.day, one.x, count);
}

function showHolding(day, clientX, count) {
  const { first, last } = chart.rangeWith(day, chart.shareAt(clientX), count);
  if (!isShown({ first, last })) showRange(first, last);
}

function release(event) {
  pressed.delete(event.pointerId);
  marking = null;
  chart.select();
  grasp();
}
