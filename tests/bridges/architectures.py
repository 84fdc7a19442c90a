"""Twelve architectures as people write them, with a forward of their own each, and a few channels."""

import torch
from torch import nn
from torch.nn import functional as F


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(1)
    )


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3)
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 4)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        x = self.pool(torch.tanh(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.view(x.size(0), -1)))
        return F.log_softmax(self.fc2(F.dropout(x, 0.5, self.training)), dim=1)


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 1
        for width in (8, "pool", 8, 8, "pool"):
            if width == "pool":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(nn.Linear(8, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 4))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2, self.downsample = nn.BatchNorm2d(outputs), None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    def __init__(self, widths=(8, 8, 8, 8)):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        before, stages = widths[0], []
        for number, width in enumerate(widths):
            stride = 1 if number == 0 else 2
            stages.append(nn.Sequential(BasicBlock(before, width, stride), BasicBlock(width, width, 1)))
            before = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(before, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class PreActivated(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        return torch.add(self.shortcut(out), self.conv2(self.drop(F.relu(self.bn2(self.conv1(out))))))


class WideResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList([PreActivated(8, 8, 1), PreActivated(8, 16, 2)])
        self.bn, self.fc = nn.BatchNorm2d(16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        x = F.avg_pool2d(F.relu(self.bn(x)), 4)
        return self.fc(x.view(-1, 16))


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        hidden = 2 * inputs
        self.skips = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish(),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return x + self.conv(x) if self.skips else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
        self.blocks = nn.Sequential(Inverted(4, 4, 1), Inverted(4, 8, 2))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean([2, 3]))


class Mixing(nn.Module):
    def __init__(self, tokens, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.mixing, self.norm, self.head = (
            nn.Sequential(Mixing(16, 8), Mixing(16, 8)),
            nn.LayerNorm(8),
            nn.Linear(8, 4),
        )

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.mixing(x)).mean(dim=1))


def double(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = double(1, 8), double(8, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Upsample(scale_factor=2)
        self.merge2, self.merge1 = (
            nn.Conv2d(16, 8, 3, padding=1),
            nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect"),
        )
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = F.relu(self.bottom(F.max_pool2d(second, 2)))
        x = F.relu(self.merge2(torch.cat([second, self.up2(x)], dim=1)))
        x = F.relu(self.merge1(torch.cat([first, self.up1(x)], dim=1)))
        return torch.sigmoid(self.out(x))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.SiLU())
        self.kind, self.side = nn.Linear(16, 4), nn.Sequential(nn.Linear(16, 15), nn.ELU(), nn.Linear(15, 1))

    def forward(self, x):
        x = self.body(x)
        return {"kind": self.kind(x), "side": torch.sigmoid(self.side(x)).squeeze(1)}


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.inner = nn.Linear(64, 16), nn.Linear(16, 16)
        self.twin, self.bias = nn.Linear(16, 16), nn.Parameter(torch.zeros(64))
        self.twin.weight = self.inner.weight

    def forward(self, x):
        code = self.twin(torch.relu(self.inner(torch.relu(self.encoder(x.flatten(1))))))
        return F.linear(torch.relu(code), self.encoder.weight.t(), self.bias).unflatten(1, (1, 8, 8))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 1, 2, 1, 0, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x):
        return self.main(x).view(-1, 1).squeeze(1)


class Residuals(nn.Module):
    """Of a table."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 16))
            for _ in range(3)
        )
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 1)

    def forward(self, x):
        x = self.first(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(F.relu(self.norm(x))).squeeze(-1)


ARCHITECTURES = {
    "MLP": mlp,
    "LeNet": LeNet,
    "VGG": VGG,
    "ResNet-18": ResNet18,
    "WRN": WideResNet,
    "MobileNet": MobileNet,
    "MLP-Mixer": Mixer,
    "U-Net": UNet,
    "two heads": TwoHeads,
    "tied autoencoder": Autoencoder,
    "DCGAN critic": Critic,
    "tabular residual MLP": Residuals,
}
