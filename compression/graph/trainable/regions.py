"""Operators on boxes in images: pooling inside them, and choosing among those that overlap."""

import torch
from torch import Tensor

from compression.graph.trainable.node import Node, Table


def roi_align(node: Node, x: Tensor, rois: Tensor, batch: Tensor) -> Tensor:
    """x: (N, C, H, W); rois: (R, 4) as x1, y1, x2, y2 -> (R, C, height, width).

    Source: He et al. 2017, Mask R-CNN (arXiv:1703.06870), section 3. `max` takes the largest of the four
    weighted corners of every sample, as onnxruntime does.
    """
    pooled = [_align_one(node, x[int(image)], roi) for roi, image in zip(rois, batch, strict=True)]
    height, width = node.attributes.get("output_height", 1), node.attributes.get("output_width", 1)
    return torch.stack(pooled) if pooled else x.new_zeros(0, x.shape[1], height, width)


def _align_one(node: Node, x: Tensor, roi: Tensor) -> Tensor:
    """x: (C, H, W)."""
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    half = node.attributes.get("coordinate_transformation_mode", default) == "half_pixel"
    box = roi * node.attributes.get("spatial_scale", 1.0) - (0.5 if half else 0.0)
    rows, columns = node.attributes.get("output_height", 1), node.attributes.get("output_width", 1)
    ys = _samples(box[1], box[3], rows, node.attributes.get("sampling_ratio", 0), half)
    xs = _samples(box[0], box[2], columns, node.attributes.get("sampling_ratio", 0), half)
    top, left = _corners(ys, x.shape[1]), _corners(xs, x.shape[2])
    parts = [
        x[:, row][:, :, column] * (row_weight[:, None] * column_weight)
        for row, row_weight in top
        for column, column_weight in left
    ]
    grid = (x.shape[0], rows, ys.numel() // rows, columns, xs.numel() // columns)
    stacked = torch.stack(parts)
    if node.attributes.get("mode", "avg") == "max":
        return stacked.amax(0).reshape(grid).amax((2, 4))
    return stacked.sum(0).reshape(grid).mean((2, 4))


def _samples(start: Tensor, end: Tensor, cells: int, ratio: int, half: bool) -> Tensor:
    """Where a box is sampled along one axis: a fixed number per cell, or about one per pixel."""
    length = end - start if half else (end - start).clamp(min=1.0)
    per_cell = ratio if ratio > 0 else max(int(torch.ceil(length / cells)), 1)
    places = torch.arange(cells * per_cell, device=start.device) + 0.5
    return start + places * length / (cells * per_cell)


def _corners(places: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels around each place with their weights; places beyond the image by over a pixel count zero."""
    inside = (places >= -1) & (places <= size)
    clamped = places.clamp(min=0)
    low = clamped.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    share = torch.where(low >= size - 1, torch.zeros_like(clamped), clamped - low)
    return [(low, (1 - share) * inside), (high, share * inside)]


def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None = None,
    overlap: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """boxes: (N, B, 4); scores: (N, C, B) -> rows of image, class and box, the best first within each class."""
    limit = 0 if most is None else int(most)
    threshold = 0.0 if overlap is None else float(overlap)
    corners = _as_corners(boxes, bool(node.attributes.get("center_point_box", 0)))
    rows: list[list[int]] = []
    for image in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            order = torch.argsort(scores[image, kind], descending=True, stable=True)
            if least is not None:
                order = order[scores[image, kind][order] > float(least)]
            chosen = _choose(corners[image], order, limit, threshold)
            rows.extend([image, kind, box] for box in chosen)
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def _as_corners(boxes: Tensor, centred: bool) -> Tensor:
    """As y1, x1, y2, x2 in rising order."""
    if centred:
        x, y, width, height = boxes.unbind(-1)
        return torch.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _choose(boxes: Tensor, order: Tensor, limit: int, threshold: float) -> list[int]:
    chosen: list[int] = []
    while order.numel() and len(chosen) < limit:
        best = int(order[0])
        chosen.append(best)
        order = order[1:]
        order = order[_overlaps(boxes[best], boxes[order]) <= threshold]
    return chosen


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box with others."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = (others[:, 2:] - others[:, :2]).prod(-1)
    union = (box[2:] - box[:2]).prod() + areas - common
    return torch.where(union > 0, common / union, torch.zeros_like(union))


REGIONS: Table = {
    "NonMaxSuppression": non_max_suppression,
    "RoiAlign": roi_align,
}
