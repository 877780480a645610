// What is known of one day, beside the chart's cursor.

class Tooltip {
  constructor(element) {
    this.element = element;
  }

  hide() {
    this.element.hidden = true;
  }

  show(title, readings) {
    const rows = readings.flatMap(({ key, label, text }) => {
      const name = document.createElement("span");
      name.dataset.layer = key;
      name.className = "key";
      name.append(label);
      const value = document.createElement("output");
      value.append(text);
      return [name, value];
    });
    const heading = document.createElement("strong");
    heading.append(title);
    this.element.replaceChildren(heading, ...rows);
    this.element.hidden = false;
  }

  // On the side of x that has more room, and never over the edge of a phone.
  place(x, top, room) {
    const width = this.element.offsetWidth;
    const wanted = x > room / 2 ? x - width - 14 : x + 14;
    this.element.style.left = `${Math.max(0, Math.min(room - width, wanted))}px`;
    this.element.style.top = `${top}px`;
  }
}
