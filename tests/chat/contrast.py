"""Whether a text can be read: its contrast with what it stands on, as WCAG 2 has it."""

# Of an element's text; every background beneath it is painted, the browser's own first.
CONTRAST = """(text) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    const paint = (colour, share) => {
        Object.assign(canvas, { globalAlpha: share, fillStyle: colour });
        canvas.fillRect(0, 0, 1, 1);
    };
    const luminance = () => {
        const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((byte) => {
            const share = byte / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const own = document.body.appendChild(document.createElement("i"));
    own.style.background = "Canvas";
    paint(getComputedStyle(own).backgroundColor, 1);
    own.remove();
    const styles = [];
    for (let it = text; it; it = it.parentElement) styles.unshift(getComputedStyle(it));
    for (const style of styles) paint(style.backgroundColor, 1);
    const paper = luminance();
    paint(styles.at(-1).color, styles.reduce((share, style) => share * style.opacity, 1));
    const [dark, light] = [paper, luminance()].sort((one, two) => one - two);
    return (light + 0.05) / (dark + 0.05);
}"""
