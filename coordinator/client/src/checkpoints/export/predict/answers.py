# Predictions and losses, and how they are printed.


def loss_kind():
    by_data = "cross_entropy" if "classes" in TARGETS or TARGETS == "next_token" else "mse"
    return JOB["batch"].get("loss") or by_data


def losses(scores, targets):
    """The loss of each sample, or of each token."""
    with precision():
        if loss_kind() == "cross_entropy":
            return functional.cross_entropy(scores, targets.reshape(-1), reduction="none")
        return functional.mse_loss(scores.float() if scores.dtype == torch.bfloat16 else scores, targets, reduction="none")


def bits(scores):
    """The bits of a row's elements, as integers."""
    return scores.contiguous().view(torch.uint8).numpy().view(f"<u{scores.element_size()}").tolist()


def units(scores):
    """Outputs of a regression in the units of the training data."""
    if "standardised" in TARGETS:
        return scores.double() * TARGETS["standardised"]["deviation"] + TARGETS["standardised"]["mean"]
    return scores


def header(outputs):
    if ASKED.scores:
        return ["row", *(f"output_{at}" for at in range(outputs))]
    if loss_kind() == "cross_entropy":
        name = (TARGETS.get("classes") or {}).get("column") or "class"
        return ["row", name, "probability", *(f"p_{at}" for at in range(outputs) if ASKED.probabilities)]
    if "standardised" in TARGETS:
        return ["row", TARGETS["standardised"]["column"]]
    return ["row", *(f"value_{at}" for at in range(outputs))]


def lines(scores, first):
    if ASKED.scores:
        width = 2 * scores.element_size()
        for at, row in enumerate(scores):
            yield [first + at, *(f"{element:0{width}x}" for element in bits(row))]
    elif loss_kind() == "cross_entropy":
        for at, row in enumerate(torch.softmax(scores.double(), 1)):
            best = "" if scores[at].isnan().any() else int(scores[at].argmax())
            yield [first + at, best, float(row.max()), *(row.tolist() if ASKED.probabilities else [])]
    else:
        for at, row in enumerate(units(scores)):
            yield [first + at, *row.tolist()]


def predict(answer):
    inputs, targets = READERS[JOB["data"]["kind"]]()
    if len(inputs) == 0:
        refuse(f"`{ASKED.file}` holds no samples")
    if targets is not None and len(targets) != len(inputs):
        refuse(f"there are {len(inputs)} inputs, but {len(targets)} targets")
    out = csv.writer(sys.stdout, lineterminator="\n")
    total, right, count, begun, without = 0.0, 0, 0, False, 0
    for first in range(0, len(inputs), ASKED.batch):
        x = inputs[first : first + ASKED.batch].clone()
        y = None if targets is None else targets[first : first + ASKED.batch].clone()
        if MODEL.get("output", "logits") == "loss":
            if y is None:
                refuse("the module returns a loss and no predictions: pass a file with targets")
            total, count = total + float(answer(x, y)) * len(x), count + len(x)
            continue
        scores = answer(x)
        if MODEL["kind"] == "torchscript" and loss_kind() == "mse" and scores.dtype == torch.bfloat16:
            scores = scores.float()  # as the run does
        if TARGETS == "next_token":
            of_tokens = losses(scores, y)
            if ASKED.scores:
                out.writerows([first + at, *(f"{element:08x}" for element in bits(row))] for at, row in enumerate(of_tokens.view(len(x), -1)))
        else:
            out.writerows([] if begun else [header(scores.shape[1])])
            out.writerows(lines(scores, first))
            begun = True
            without += int(scores.flatten(1).isnan().any(1).sum())
        if y is not None:
            values = y.shape[1] if loss_kind() == "mse" else 1
            total += float(losses(scores, y).sum(dtype=torch.float64)) / values
            right += int(((scores.argmax(-1) == y.reshape(-1)) & ~scores.isnan().any(-1)).sum()) if loss_kind() == "cross_entropy" else 0
            count += y.numel() // values
    if count > 0:
        report(total, right, count)
    if without > 0:
        sys.stdout.flush()
        refuse(f"{without} of {len(inputs)} samples have no prediction: the model's outputs for them contain NaN")


def report(total, right, count):
    words = [f"loss {total / count}" + (" (standardised)" if "standardised" in TARGETS else "")]
    if TARGETS == "next_token":
        words.append(f"perplexity {math.exp(total / count)}")
    if loss_kind() == "cross_entropy" and MODEL.get("output", "logits") != "loss":
        words.append(f"accuracy {right / count}")
    words.append(f"{'tokens' if TARGETS == 'next_token' else 'samples'} {count}")
    stream = sys.stdout if TARGETS == "next_token" and not ASKED.scores else sys.stderr
    print(", ".join(words), file=stream)


def go_on(answer):
    """Print tokens that continue the file, each drawn from the model's scores."""
    if "tokens" not in INPUTS:
        refuse("--continue is for language models")
    tokens, context = token_file(ASKED.file), INPUTS["tokens"]["context"]
    if len(tokens) == 0:
        refuse(f"`{ASKED.file}` holds no token to continue")
    generator = torch.Generator().manual_seed(ASKED.seed)
    kind = numpy.dtype({"u8": "<u1", "u16": "<u2"}[INPUTS["tokens"]["dtype"]])
    # Tokens of the vocabulary that a file of this type cannot hold are never chosen.
    held = min(INPUTS["tokens"]["vocabulary"], 256**kind.itemsize)
    tokens = tokens[-context:]
    for _ in range(ASKED.tokens):
        scores = answer(tokens[None, -context:])[-1, :held].float()
        if ASKED.temperature == 0:
            token = scores.argmax(keepdim=True)
        else:
            token = torch.multinomial(torch.softmax(scores / ASKED.temperature, 0), 1, generator=generator)
        tokens = torch.cat([tokens, token])
        sys.stdout.buffer.write(token.numpy().astype(kind).tobytes())
    sys.stdout.buffer.flush()


def main():
    switches()
    try:
        with torch.no_grad():
            (predict if ASKED.tokens is None else go_on)(network())
        sys.stdout.flush()
    except FileNotFoundError as error:
        refuse(f"`{error.filename or ASKED.file}` does not exist")
    except BrokenPipeError:
        # The reader closed the pipe, as `| head` does. Otherwise Python would fail again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # Otherwise Python would fail again when it flushes the rest at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            refuse(f"cannot write the answer: {error.strerror}")
        refuse(f"cannot read `{error.filename or ASKED.file}`: {error.strerror}")
    except csv.Error as error:
        refuse(f"`{ASKED.file}` is not a table: {error}")
    except RuntimeError as error:
        told = [line for line in str(error).splitlines() if line.strip()]
        refuse(f"cannot run the model: {told[-1] if told else error}")


if __name__ == "__main__":
    main()
