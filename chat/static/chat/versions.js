/* The versions of prompts and answers: a conversation is a tree, and the page shows one path. */

let tree = []; // as the API has it, oldest first: {id, follows, responses: [{id}, …]}

export function know(nodes) {
  tree = nodes;
}

/** One more response; its prompt may be new as well. */
export function add({ id, prompt }, follows) {
  if (!tree.some((node) => node.id === prompt)) tree.push({ id: prompt, follows, responses: [] });
  const { responses } = tree.find((node) => node.id === prompt);
  if (!responses.some((row) => row.id === id)) responses.push({ id });
}

/** The ids of the prompts that follow the same, an answered one's own among them. */
export function ofPrompt({ follows }) {
  const siblings = tree.filter((node) => node.follows === follows && node.responses.length);
  return siblings.map(({ id }) => id);
}

/** The ids of the answers to the same prompt. */
export function ofAnswer({ prompt }) {
  return tree.find((node) => node.id === prompt)?.responses.map(({ id }) => id) ?? [];
}

/** Where a path through a prompt or response ends that takes the newest everywhere behind it. */
export function endOf(id) {
  let end = tree.find((node) => node.id === id)?.responses.at(-1).id ?? id;
  for (;;) {
    const next = tree.findLast((node) => node.follows === end && node.responses.length);
    if (!next) return end;
    end = next.responses.at(-1).id;
  }
}
