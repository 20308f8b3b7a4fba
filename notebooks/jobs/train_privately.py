# Describes an image classifier; the hospital's own trainer trains it, with differential privacy.
#
# Reads     the card of the approved dataset, and no image: it runs where there is none.
# Computes  the layers of a model, without weights: what is called on what leaves as a graph. The
#           hospital rebuilds it from torch's own layers, loads the weights that were sent, and
#           makes `steps` private steps on the `train` split.
# Leaves    weights   the trained parameters, names and shapes as the model's
#           examples  a number from the card; nothing is counted, no loss and no metric
# Arguments `defaults` has them all. `learning_rate` and what follows it is for the hospital's
#           trainer. Noise, clipping and the images per patient are the hospital's.


def build(card, config):
    from torch import nn
    from torchvision.models import densenet121, mobilenet_v2, resnet18

    builders = {"small_cnn": small_cnn, "mobilenet_v2": mobilenet_v2}
    builders |= {"resnet18": resnet18, "densenet121": densenet121}
    model = builders[{**defaults(), **config}["model"]](num_classes=len(card["classes"]))
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):  # its running statistics would carry images
            model.set_submodule(name, nn.GroupNorm(8, layer.num_features))
    return model


def defaults():
    return {
        "model": "small_cnn",  # or mobilenet_v2, resnet18, densenet121
        "seed": 0,  # of the initial weights
        "size": 0,  # images are resized to so many pixels; 0: as they are
        "learning_rate": 2.0,
        "schedule": "constant",  # or cosine: down to 0 within a run
        "optimizer": "sgd",  # or adam
        "momentum": 0.0,  # of sgd
        "weight_decay": 0.0,
    }


def initial_weights(card, config):
    import torch

    torch.manual_seed({**defaults(), **config}["seed"])
    model = build(card, config)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def small_cnn(num_classes):
    from torch import nn

    layers, before = [], 3
    for after, pooling in ((16, True), (64, True), (128, False), (96, False)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooling else []
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
    return nn.Sequential(*layers)
